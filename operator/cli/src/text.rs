//! What is shown to people: one writer, through which all text output goes. Much of it was written by
//! strangers, and a terminal obeys control characters.

use std::io::{self, IsTerminal, StdoutLock, Write};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use zentra_core::printable::{printable, push_printable};

use crate::failure::Failure;

/// The standard output, as text.
pub(crate) fn stdout() -> Text<StdoutLock<'static>> {
    Text::new(io::stdout().lock())
}

/// A path as a shell takes it: between quotes where it has other characters than names usually have.
pub(crate) fn in_shell(path: &Path) -> String {
    word_in_shell(&path.display().to_string())
}

/// A word as a shell takes it.
pub(crate) fn word_in_shell(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "._/-+@:".contains(c);
    match text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A time as people write it: `3 days`, `1 day 2h`, `30s`.
pub(crate) fn duration(time: Duration) -> String {
    let words = humantime::format_duration(time).to_string();
    let word = |word: &str| match word.find(char::is_alphabetic) {
        Some(unit) if word.len() > unit + 2 => format!("{} {}", &word[..unit], &word[unit..]),
        _ => word.to_owned(),
    };
    words.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

/// Writes to standard error which entries of a list a newer version of Zentra wrote.
pub(crate) fn show_newer(names: &[String]) {
    if !names.is_empty() {
        let names = printable(&names.join(", "));
        eprintln!(
            "Not shown, because a newer version of Zentra wrote them: {names}. Upgrade this one."
        );
    }
}

/// Writes a value as JSON.
pub(crate) fn print_json(value: &impl Serialize, out: &mut impl Write) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
    Ok(writeln!(out)?)
}

/// Writes bytes to the standard output as they are, but to a terminal as text, unless they are wanted
/// `raw` there too.
pub(crate) fn write_bytes(bytes: &[u8], raw: bool) -> io::Result<()> {
    match raw || !io::stdout().is_terminal() {
        true => io::stdout().lock().write_all(bytes),
        false => {
            let mut out = stdout();
            out.write_all(bytes)?;
            writeln!(out)?;
            out.flush()
        }
    }
}

/// Writes text on, without control characters. What is not UTF-8 is shown as U+FFFD.
pub(crate) struct Text<W: Write> {
    out: W,
    /// The start of a character whose rest has not come yet.
    begun: Vec<u8>,
}

impl<W: Write> Text<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, begun: Vec::new() }
    }
}

impl<W: Write> Write for Text<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let begun = std::mem::take(&mut self.begun);
        let mut text = String::with_capacity(begun.len());
        let mut chunks = begun.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            chunk.valid().chars().for_each(|c| push_printable(&mut text, c));
            match chunk.invalid() {
                [] => {}
                rest if chunks.peek().is_none() && may_go_on(rest) => self.begun = rest.to_vec(),
                _ => text.push(char::REPLACEMENT_CHARACTER),
            }
        }
        self.out.write_all(text.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether these bytes can be the start of a character.
fn may_go_on(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zentra_core::printable::{is_obeyed, printable};

    use super::*;

    fn written(pieces: &[&[u8]]) -> String {
        let mut out = Text::new(Vec::new());
        pieces.iter().for_each(|piece| out.write_all(piece).unwrap());
        String::from_utf8(out.out).unwrap()
    }

    #[test]
    fn what_a_terminal_obeys_is_written_out() {
        for (given, shown) in [
            ("a\u{1b}]0;title\u{7}b\n", "a\\u001b]0;title\\u0007b\n"),
            ("\u{9b}31m\u{7f}\r\t", "\\u009b31m\\u007f\\u000d\\u0009"),
            ("x\u{202e}fdp.exe\u{2066}", "x\\u202efdp.exe\\u2066"),
            ("Müller 東京 🎉", "Müller 東京 🎉"),
        ] {
            assert_eq!(written(&[given.as_bytes()]), shown);
            assert_eq!(printable(given), shown);
        }
        assert_eq!(written(&[b"a\xffb"]), "a\u{fffd}b");
    }

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        for path in ["zentra.toml", "/etc/zentra/zentra.toml", "a b/c", "it's", "$HOME;`x`", "é"] {
            let echo = format!("printf %s {}", in_shell(Path::new(path)));
            let printed = std::process::Command::new("sh").args(["-c", &echo]).output().unwrap();
            assert_eq!(String::from_utf8(printed.stdout).unwrap(), path);
        }
    }

    #[test]
    fn json_stays_json() {
        let value = serde_json::json!({ "id": "a\u{9b}\u{202e}\u{7f}\u{1b}" });
        let shown = written(&[serde_json::to_string_pretty(&value).unwrap().as_bytes()]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(!shown.chars().any(is_obeyed), "{shown}");
    }

    proptest! {
        #[test]
        fn no_way_to_cut_it_lets_anything_through(text: String, bytes: Vec<u8>, cut in 0usize..64) {
            for given in [text.as_bytes(), &bytes[..]] {
                let (first, rest) = given.split_at(cut.min(given.len()));
                let shown = written(&[first, rest]);
                prop_assert!(!shown.chars().any(is_obeyed));
                if let Ok(text) = std::str::from_utf8(given) {
                    prop_assert_eq!(shown, printable(text));
                }
            }
        }
    }
}
