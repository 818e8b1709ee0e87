//! Fields of a `multipart/form-data` body (RFC 7578), as slices. So memory doesn't grow with the
//! body; libraries would copy.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderValue;
use memchr::memmem;
use sha2::{Digest, Sha256};

use super::place::one;
use super::pointer::text_at;

/// Maximum number of fields.
const MAX_FIELDS: usize = 100;
/// Maximum number of headers of a field.
const MAX_HEADERS: usize = 16;

/// Name and value.
pub(super) type Field<'a> = (&'a str, &'a [u8]);

/// Fields of a body, in their order. `None` if it isn't a complete form, if a field has no name, or
/// if there are too many.
pub(super) fn fields<'a>(content_type: &str, body: &'a [u8]) -> Option<Vec<Field<'a>>> {
    let boundary = parameter(content_type, "multipart/form-data", "boundary")?;
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..])?;
    let mut fields = Vec::new();
    while !rest.starts_with(b"--") {
        if fields.len() == MAX_FIELDS {
            return None;
        }
        let field = rest.strip_prefix(b"\r\n")?;
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let (start, headers) = match httparse::parse_headers(field, &mut headers).ok()? {
            httparse::Status::Complete(read) => read,
            httparse::Status::Partial => return None,
        };
        let named = |header: &&httparse::Header<'_>| {
            header.name.eq_ignore_ascii_case("content-disposition")
        };
        let disposition = one(headers.iter().filter(named))?.value;
        let name = parameter(std::str::from_utf8(disposition).ok()?, "form-data", "name")?;
        let value = &field[start..];
        let end = memmem::find(value, delimiter.as_bytes())?;
        fields.push((name, &value[..end]));
        rest = &value[end + delimiter.len()..];
    }
    Some(fields)
}

/// The one parameter of this name in a header's value of this kind. None where the value can't be
/// read to its end, too: a quoted text may hold what looks like a parameter.
fn parameter<'a>(value: &'a str, kind: &str, name: &str) -> Option<&'a str> {
    let (first, mut rest) = value.split_once(';')?;
    if !first.trim().eq_ignore_ascii_case(kind) {
        return None;
    }
    let mut found = None;
    while !rest.trim().is_empty() {
        let (key, behind) = rest.split_once('=')?;
        let text;
        (text, rest) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => {
                let (token, next) = behind.split_at(behind.find(';').unwrap_or(behind.len()));
                (token.trim(), next)
            }
        };
        rest = match rest.trim_start().strip_prefix(';') {
            None if !rest.trim().is_empty() => return None,
            next => next.unwrap_or_default(),
        };
        if key.trim().eq_ignore_ascii_case(name) {
            let text = Some(text).filter(|text| !text.is_empty() && !text.contains('\\'));
            if found.replace(text?).is_some() {
                return None;
            }
        }
    }
    found
}

/// A field's name, and the JSON pointer behind it.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.split_at(path.find('/').unwrap_or(path.len()))
}

/// The value at a path, if exactly one field has it.
pub(super) fn text<'a>(fields: &[Field<'a>], path: &str) -> Option<Cow<'a, str>> {
    let (name, pointer) = split(path);
    let (_, value) = one(fields.iter().filter(|(field, _)| *field == name))?;
    match pointer {
        "" => std::str::from_utf8(value).ok().map(Cow::Borrowed),
        pointer => text_at(value, pointer).map(Cow::Owned),
    }
}

/// A form of these fields, with its content type.
pub(super) fn form(fields: &[Field<'_>]) -> (HeaderValue, Bytes) {
    let mut hash = Sha256::new();
    fields.iter().for_each(|(_, value)| hash.update(value));
    // No value can contain its own digest.
    let boundary = hex::encode(&hash.finalize()[..16]);
    let mut body = Vec::new();
    for (name, value) in fields {
        let head =
            format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(value);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let kind = HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}"));
    (kind.unwrap_or(HeaderValue::from_static("multipart/form-data")), body.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: &str = "multipart/form-data; boundary=b";

    fn lines(body: &str) -> String {
        body.replace('\n', "\r\n")
    }

    fn field(name: &str, value: &str) -> String {
        format!("--b\ncontent-disposition: form-data; name=\"{name}\"\n\n{value}\n")
    }

    #[test]
    fn a_field_or_what_is_in_its_json_is_found_where_it_is_once() {
        let json = r#"{"event":{"type":"sent","at":7}}"#;
        let two = field("x", "1") + &field("json", json) + &field("x", "2") + "--b--\n";
        let two = lines(&two);
        let fields = fields(KIND, two.as_bytes()).unwrap();
        assert_eq!(text(&fields, "json/event/type").as_deref(), Some("sent"));
        assert_eq!(text(&fields, "json/event/at").as_deref(), Some("7"));
        assert_eq!(text(&fields, "json").as_deref(), Some(json));
        for missing in ["x", "other", " json", "json/event/none", "event/type", ""] {
            assert_eq!(text(&fields, missing), None, "{missing}");
        }
    }

    #[test]
    fn what_is_no_whole_form_has_no_fields() {
        let count = |kind: &str, body: &str| {
            fields(kind, lines(body).as_bytes()).map(|fields| fields.len())
        };
        let whole = field("json", "{}") + "--b--\n";
        assert_eq!(count(KIND, &whole), Some(1));
        for bad in [
            &whole[..whole.len() - 6],
            "",
            "{}",
            "--b\n\nno name\n--b--\n",
            "--b\ncontent-disposition: form-data; name=\"a\"\n--b--\n",
            "--b\ncontent-disposition: form-data; name=\"a\"; name=\"b\"\n\n\n--b--\n",
            "--b\ncontent-disposition: form-data; name=\"a\"\ncontent-disposition: form-data; name=\"b\"\n\n\n--b--\n",
            "--b\ncontent-disposition: form-data; name=\"a\\\"b\"\n\n\n--b--\n",
            &format!("preamble\n{whole}"),
        ] {
            assert_eq!(count(KIND, bad), None, "{bad}");
        }
        for kind in ["application/json", "multipart/form-data", "multipart/form-data; boundary=c"] {
            assert_eq!(count(kind, &whole), None, "{kind}");
        }
        for kind in [
            "Multipart/Form-Data;Boundary=\"b\"",
            "multipart/form-data; x=\"; boundary=c\"; boundary=b",
        ] {
            assert_eq!(count(kind, &whole), Some(1), "{kind}");
        }
        let most = field("a", "").repeat(MAX_FIELDS);
        assert_eq!(count(KIND, &(most.clone() + "--b--\n")), Some(MAX_FIELDS));
        assert_eq!(count(KIND, &(most + &field("a", "") + "--b--\n")), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            fields in prop::collection::vec(("[a-z]{1,8}", prop::collection::vec(any::<u8>(), 0..64)), 1..5)
        ) {
            let fields: Vec<Field<'_>> =
                fields.iter().map(|(name, value)| (&**name, &**value)).collect();
            let (kind, body) = form(&fields);
            prop_assert_eq!(super::fields(kind.to_str().unwrap(), &body), Some(fields));
        }

        #[test]
        fn no_body_panics(kind in ".{0,64}", body in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = fields(&kind, &body);
            let _ = fields(KIND, &body);
        }
    }
}
