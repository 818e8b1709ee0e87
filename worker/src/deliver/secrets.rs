//! Secrets that a destination's answer repeats: they do not get into histories.

use std::borrow::Cow;

use http::HeaderMap;

/// Minimum length of what is taken for a secret. A shorter word, such as `Bearer`, is in many texts.
const MIN: usize = 8;
const REDACTED: &str = "[redacted]";

/// The text, without the values of these headers and their words. What the end of the text has cut off is removed
/// too.
pub(super) fn without_secrets<'t>(text: Cow<'t, str>, headers: &HeaderMap) -> Cow<'t, str> {
    let values = headers.values().filter_map(|value| value.to_str().ok());
    let mut secrets: Vec<&str> = values
        .flat_map(|value| [value].into_iter().chain(value.split_whitespace()))
        .filter(|secret| secret.len() >= MIN)
        .collect();
    // The longest first: a word is part of its value.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text, |text, secret| {
        if text.contains(secret) {
            return Cow::Owned(text.replace(secret, REDACTED));
        }
        match cut_off(&text, secret) {
            Some(rest) => Cow::Owned(format!("{}{REDACTED}", &text[..rest])),
            None => text,
        }
    })
}

/// Where the end of the text is the begin of the secret.
fn cut_off(text: &str, secret: &str) -> Option<usize> {
    (MIN..secret.len())
        .rev()
        .filter_map(|length| secret.get(..length))
        .find(|begin| text.ends_with(begin))
        .map(|begin| text.len() - begin.len())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_str(value).unwrap());
        headers
    }

    fn of(text: &str, value: &str) -> String {
        without_secrets(text.into(), &headers(value)).into_owned()
    }

    #[test]
    fn values_and_their_words_are_removed_and_short_words_stay() {
        let value = "Bearer 0123456789abcdef";
        assert_eq!(of("got Bearer 0123456789abcdef", value), "got [redacted]");
        assert_eq!(of("no such token 0123456789abcdef.", value), "no such token [redacted].");
        assert_eq!(of("Bearer is missing", value), "Bearer is missing");
        assert_eq!(of("cut: 0123456789a", value), "cut: [redacted]");
        assert_eq!(of("cut: 0123456", value), "cut: 0123456");
    }

    proptest! {
        #[test]
        fn no_secret_stays(before in "[ -~]{0,20}", secret in "[!-~]{8,20}", after in "[ -~]{0,20}") {
            let text = of(&format!("{before}{secret}{after}"), &secret);
            prop_assert!(!text.contains(&secret), "{text}");
        }
    }
}
