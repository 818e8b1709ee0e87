//! Redaction: fields of the body, headers and parameters of the query that operators don't see.
//!
//! It applies to everything that is shown or exported. Destinations receive the provider's bytes.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderName;
use serde_json::Value;
use webhook_verify::pointer_steps;

use crate::event::Context;

/// Replacement for a redacted value.
pub const REDACTED: &str = "[redacted]";
/// Replacement for a body that isn't JSON.
const UNREADABLE: &[u8] = b"[redacted: the body is not JSON, and its source redacts fields]";
const HEADER: &str = "header:";
const QUERY: &str = "query:";

/// Redaction rules of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redact {
    /// JSON pointers, split into steps.
    fields: Vec<Vec<String>>,
    headers: Vec<HeaderName>,
    /// Names of query parameters.
    parameters: Vec<String>,
}

impl Redact {
    /// Rules from texts: a JSON pointer (RFC 6901; `*` matches any name or number), `header:NAME`
    /// or `query:NAME`. The error is the invalid text.
    pub fn new(texts: &[String]) -> Result<Self, String> {
        let mut all = Self::default();
        for text in texts {
            if let Some(name) = text.strip_prefix(QUERY).filter(|name| !name.is_empty()) {
                all.parameters.push(name.to_owned());
                continue;
            }
            match (text.strip_prefix(HEADER), text.strip_prefix('/')) {
                (Some(name), _) => {
                    all.headers.push(name.parse().map_err(|_| text.clone())?);
                }
                (None, Some(_)) => {
                    all.fields.push(pointer_steps(text).map(Cow::into_owned).collect());
                }
                (None, None) => return Err(text.clone()),
            }
        }
        Ok(all)
    }

    /// Whether this header is redacted.
    pub fn header(&self, name: &str) -> bool {
        self.headers.iter().any(|header| header.as_str().eq_ignore_ascii_case(name))
    }

    /// Redacts a context.
    pub fn context(&self, context: &mut Context) {
        for (name, value) in &mut context.headers {
            if self.header(name) {
                *value = REDACTED.to_owned();
            }
        }
        if let Some(query) = context.query.as_mut().filter(|_| !self.parameters.is_empty()) {
            let pairs = query.split('&').map(|pair| match pair.split_once('=') {
                Some((name, _)) if self.parameters.iter().any(|known| known == name) => {
                    format!("{name}={REDACTED}")
                }
                _ => pair.to_owned(),
            });
            *query = pairs.collect::<Vec<_>>().join("&");
        }
    }

    /// Whether bodies are shown unchanged.
    pub fn shows_bodies(&self) -> bool {
        self.fields.is_empty()
    }

    /// A redacted body: the same bytes if there is nothing to redact, otherwise JSON that is
    /// written again.
    pub fn body(&self, body: &Bytes) -> Bytes {
        if self.shows_bodies() || body.is_empty() {
            return body.clone();
        }
        let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
            return Bytes::from_static(UNREADABLE);
        };
        for steps in &self.fields {
            redact(&mut value, steps);
        }
        value.to_string().into()
    }
}

fn redact(value: &mut Value, steps: &[String]) {
    let Some((step, rest)) = steps.split_first() else {
        *value = REDACTED.into();
        return;
    };
    let any = step == "*";
    match value {
        Value::Object(fields) => {
            let found = fields.iter_mut().filter(|(name, _)| any || *name == step);
            found.for_each(|(_, value)| redact(value, rest));
        }
        Value::Array(items) => {
            let at = step.parse::<usize>().ok();
            let found = items.iter_mut().enumerate().filter(|(place, _)| any || at == Some(*place));
            found.for_each(|(_, value)| redact(value, rest));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(texts: &[&str], body: &str) -> String {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        let body = Redact::new(&texts).unwrap().body(&Bytes::copy_from_slice(body.as_bytes()));
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn fields_are_redacted_wherever_the_pointer_leads() {
        let body = r#"{"a":{"b":1,"c":[{"d":2},{"d":3}]},"x/y":4}"#;
        for (pointer, expected) in [
            ("/a/b", r#"{"a":{"b":"[redacted]","c":[{"d":2},{"d":3}]},"x/y":4}"#),
            ("/a/c/*/d", r#"{"a":{"b":1,"c":[{"d":"[redacted]"},{"d":"[redacted]"}]},"x/y":4}"#),
            ("/a/c/1", r#"{"a":{"b":1,"c":[{"d":2},"[redacted]"]},"x/y":4}"#),
            ("/a", r#"{"a":"[redacted]","x/y":4}"#),
            ("/x~1y", r#"{"a":{"b":1,"c":[{"d":2},{"d":3}]},"x/y":"[redacted]"}"#),
            ("/nothing/there", body),
        ] {
            assert_eq!(seen(&[pointer], body), expected, "{pointer}");
        }
        assert_eq!(seen(&[], "any bytes"), "any bytes");
        assert_eq!(seen(&["header:x-name"], "any bytes"), "any bytes");
        assert!(!seen(&["/a"], "a=secret").contains("secret"), "what can't be read isn't shown");
        assert_eq!(seen(&["/a"], ""), "");
    }

    #[test]
    fn headers_are_named_in_any_case_and_what_is_neither_is_told() {
        let redact = Redact::new(&["header:X-Name".into()]).unwrap();
        assert!(redact.header("x-name") && redact.header("X-NAME") && !redact.header("x"));
        let redact = Redact::new(&["header:x-a".into(), "query:token".into()]).unwrap();
        let mut context = Context {
            headers: vec![("x-a".into(), "1".into()), ("x-b".into(), "2".into())],
            query: Some("a=1&token=2&b".into()),
            ..Context::default()
        };
        redact.context(&mut context);
        assert_eq!(context.headers[0].1, REDACTED);
        assert_eq!(context.headers[1].1, "2");
        assert_eq!(context.query.as_deref(), Some("a=1&token=[redacted]&b"));
        for text in ["a", "", "header:", "header:a b", "query:"] {
            assert_eq!(Redact::new(&[text.into()]), Err(text.into()));
        }
    }
}
