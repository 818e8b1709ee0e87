//! The commands that the documentation shows exist, with the options that it gives them.

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;

use crate::arguments::Arguments;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// The pages of the project: those beside the README, and those below `docs`.
fn pages() -> Vec<PathBuf> {
    let mut folders = vec![root().join("docs")];
    let mut pages: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
            .iter()
            .map(|name| root().join(name))
            .collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|end| end == "md") => pages.push(path),
                false => {}
            }
        }
    }
    pages
}

/// The pieces of a page that may be commands: lines of blocks, and code in prose.
fn pieces(text: &str) -> Vec<String> {
    let (mut pieces, mut prose, mut block) = (Vec::new(), String::new(), None);
    for line in text.replace("\\\n", " ").lines() {
        match (line.strip_prefix("```"), block) {
            (Some(info), None) => block = Some(info.starts_with("sh") || info == "console"),
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => pieces.push(line.to_owned()),
            (None, Some(false)) => {}
            // Code in prose may go over the end of a line.
            (None, None) => prose = prose + line + " ",
        }
    }
    pieces.extend(prose.split('`').skip(1).step_by(2).map(str::to_owned));
    pieces
}

/// The calls of `zentra` in a piece, each without the program's name.
fn calls(piece: &str) -> Vec<Vec<String>> {
    let words = shlex::split(piece).unwrap_or_default();
    let begins = |at: &usize| {
        let before = at.checked_sub(1).map(|at| words[at].as_str());
        words[*at] == "zentra"
            && before.is_none_or(|word| ["|", "&&", "--", "zentra"].contains(&word))
    };
    let ends = |word: &&String| !["|", "&&", "||", ">", "2>", "&", ";"].contains(&word.as_str());
    let calls = (0..words.len()).filter(begins);
    calls.map(|at| words[at + 1..].iter().take_while(ends).cloned().collect()).collect()
}

/// What is wrong with a call: an unknown command or option.
fn wrong(call: &[String]) -> Option<String> {
    let mut command = Arguments::command();
    command.build();
    let mut at = &command;
    for word in call {
        let word = word.trim_end_matches([',', ';', '.']);
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or_default();
            if !name.is_empty() && !at.get_arguments().any(|known| known.get_long() == Some(name)) {
                return Some(format!("{} has no option --{name}", at.get_name()));
            }
        } else if at.has_subcommands() {
            match at.find_subcommand(word) {
                Some(found) => at = found,
                // A name in capitals, or three dots, stands for any of them.
                None if word.chars().all(|c| !c.is_lowercase()) => return None,
                None => return Some(format!("{} has no command {word}", at.get_name())),
            }
        }
    }
    None
}

#[test]
fn each_command_that_a_page_shows_exists() {
    let (mut seen, mut problems) = (0, Vec::new());
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for call in pieces(&text).iter().flat_map(|piece| calls(piece)) {
            seen += 1;
            problems
                .extend(wrong(&call).map(|what| format!("{}: {what}: {call:?}", page.display())));
        }
    }
    assert!(seen > 200, "only {seen} commands were found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_does_not_exist_is_found() {
    let of = |line: &str| calls(line).iter().find_map(|call| wrong(call));
    assert_eq!(of("zentra dead requeue ID --because WHY | grep zentra"), None);
    assert_eq!(of("x | zentra event find TEXT --json"), None);
    assert!(of("zentra dead revive ID").is_some());
    assert!(of("zentra status --verbose").is_some());
    assert!(of("echo a && zentra statsu").is_some());
}
