//! Text from outside, safe for a terminal.

/// Text without control characters: `\u001b` instead of an escape, which JSON reads as the same.
pub fn printable(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    text.chars().for_each(|c| push_printable(&mut all, c));
    all
}

/// Adds one character of such a text.
pub fn push_printable(text: &mut String, c: char) {
    match is_obeyed(c) {
        true => text.push_str(&format!("\\u{:04x}", u32::from(c))),
        false => text.push(c),
    }
}

/// Control characters but the line feed (C0, DEL and C1), and those that change the direction of what
/// follows (Unicode's property `Bidi_Control`).
pub fn is_obeyed(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    (c.is_control() && c != '\n') || turns
}
