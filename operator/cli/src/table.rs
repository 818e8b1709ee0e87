//! Tables of text.

use std::io::Write;

use comfy_table::{Table, presets};

/// Prints rows under column names, aligned.
pub(crate) fn write<const N: usize>(
    out: &mut impl Write,
    names: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> std::io::Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(names).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    writeln!(out, "{}", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_no_line_ends_with_spaces() {
        let mut out = Vec::new();
        let rows = [["a long name".into(), "1".into()], ["b".into(), String::new()]];
        write(&mut out, ["NAME", "COUNT"], rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME         COUNT\na long name  1\nb\n");
    }
}
