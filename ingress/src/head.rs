//! The head of an HTTP/1 request as it came. The HTTP library drops `Content-Length` where there is
//! `Transfer-Encoding`, so nobody would see that a request was framed in two ways.

use memchr::memchr;

const LENGTH: &[u8] = b"content-length:";
const ENCODING: &[u8] = b"transfer-encoding:";

/// A request that says in two ways where it ends (RFC 9112, section 6.3): a proxy may have believed the
/// other one.
#[derive(Clone, Copy)]
pub(crate) struct TwoFramings;

/// What is known of a head, as its bytes come.
#[derive(Default)]
pub(crate) struct Head {
    /// How the line begins, in lower case: at most as much as the longer name.
    line: Vec<u8>,
    lines: usize,
    ended: bool,
    has_length: bool,
    has_encoding: bool,
}

impl Head {
    /// Reads on, up to the empty line.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) {
        while !self.ended && !bytes.is_empty() {
            let end = memchr(b'\n', bytes);
            let (piece, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
            let left = ENCODING.len() - self.line.len();
            self.line.extend(piece.iter().take(left).map(u8::to_ascii_lowercase));
            bytes = rest.get(1..).unwrap_or_default();
            if end.is_some() {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        self.has_length |= self.line.starts_with(LENGTH);
        self.has_encoding |= self.line.starts_with(ENCODING);
        // An empty line before the request is no end.
        self.ended = self.lines > 0 && matches!(&self.line[..], b"" | b"\r");
        self.lines += usize::from(!matches!(&self.line[..], b"" | b"\r"));
        self.line.clear();
    }

    pub(crate) fn has_two_framings(&self) -> bool {
        self.has_length && self.has_encoding
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: &str = "\r\nPOST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\
                        TRANSFER-encoding: chunked\r\n\r\n";

    fn has_two_framings(pieces: &[&[u8]]) -> bool {
        let mut head = Head::default();
        pieces.iter().for_each(|piece| head.read(piece));
        head.has_two_framings()
    }

    #[test]
    fn both_are_found_in_the_head_alone() {
        assert!(has_two_framings(&[BOTH.as_bytes()]));
        assert!(has_two_framings(&[BOTH.replace("\r\n", "\n").as_bytes()]));
        for one in [
            BOTH.replace("Content-Length", "X-Content-Length"),
            BOTH.replace("TRANSFER-", "X-TRANSFER-"),
            BOTH.replace("\r\nContent", "\r\n\r\nContent"),
            BOTH.replace("Host: x\r\nContent-Length: 1", "Host: Content-Length: 1"),
        ] {
            assert!(!has_two_framings(&[one.as_bytes()]), "{one}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_a_head_comes(
            cuts in prop::collection::vec(0..BOTH.len(), 0..6),
            other in "([ -~]{0,30}\r?\n){0,4}",
        ) {
            let text = BOTH.replace("Host: x\r\n", &format!("Host: x\r\n{other}"));
            let whole = has_two_framings(&[text.as_bytes()]);
            let mut cuts = cuts;
            cuts.sort_unstable();
            let (mut pieces, mut from) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&text.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&text.as_bytes()[from..]);
            prop_assert_eq!(has_two_framings(&pieces), whole);
        }
    }
}
