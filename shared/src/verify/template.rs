//! What a signature covers, as a template: `{timestamp}.{body}`.

use http::HeaderName;
use serde::Deserialize;

/// A parsed template. Its text is literal but for `{body}`, `{timestamp}` (as the
/// provider wrote it), `{header:NAME}`, `{method}` and `{url}` (as the provider knows it).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Template(Vec<Part>);

/// A piece of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Literal(String),
    /// The raw body.
    Body,
    /// The timestamp's text.
    Timestamp,
    /// A header's value.
    Header(HeaderName),
    /// The request's method.
    Method,
    /// The address that the provider sends to, with the query.
    Url,
}

impl Template {
    /// The pieces in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Whether a piece occurs.
    pub fn covers(&self, part: &Part) -> bool {
        self.0.contains(part)
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some(open) = rest.find('{') {
            if open > 0 {
                parts.push(Part::Literal(rest[..open].into()));
            }
            let close = rest.find('}').filter(|close| *close > open);
            let close = close.ok_or("the template has a { without a }")?;
            parts.push(variable(&rest[open + 1..close])?);
            rest = &rest[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.into()));
        }
        Ok(Self(parts))
    }
}

fn variable(name: &str) -> Result<Part, String> {
    match name.split_once(':') {
        None if name == "body" => Ok(Part::Body),
        None if name == "timestamp" => Ok(Part::Timestamp),
        None if name == "method" => Ok(Part::Method),
        None if name == "url" => Ok(Part::Url),
        Some(("header", header)) => HeaderName::try_from(header)
            .map(Part::Header)
            .map_err(|_| "the template names a header that can't exist".into()),
        _ => {
            Err("the template knows {body}, {timestamp}, {method}, {url} and {header:NAME}".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_template_is_literal_text_and_known_variables() {
        let parsed = Template::try_from("{header:webhook-id}.{timestamp}.{body}!".to_owned());
        let dot = || Part::Literal(".".into());
        let id = Part::Header(HeaderName::from_static("webhook-id"));
        let parts = [id, dot(), Part::Timestamp, dot(), Part::Body, Part::Literal("!".into())];
        assert_eq!(parsed.unwrap().parts(), parts);
    }

    #[test]
    fn an_unknown_variable_or_an_open_brace_is_an_error() {
        for bad in ["{bod}", "{body", "}{", "{header:a b}", "{:}"] {
            assert!(Template::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused_without_panic(text in ".{0,64}") {
            let _ = Template::try_from(text);
        }
    }
}
