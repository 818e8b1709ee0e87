//! The event's attributes as CloudEvents 1.0 headers, binary mode.
//!
//! <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>

use http::{HeaderName, HeaderValue};
use zentra_core::event::Envelope;

const SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
const ID: HeaderName = HeaderName::from_static("ce-id");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const TIME: HeaderName = HeaderName::from_static("ce-time");

/// `source` and `id` together name the event, over all its copies and retries. The time is
/// the provider's, or that of receipt.
pub(super) fn attributes(envelope: &Envelope) -> Vec<(HeaderName, HeaderValue)> {
    let name = envelope.name();
    let time = envelope.provider_time.unwrap_or(envelope.received_at).to_string();
    let attributes = [
        (SPECVERSION, "1.0"),
        (ID, name.as_str()),
        (SOURCE, &envelope.source),
        // Required, and not empty.
        (TYPE, envelope.event_type.as_deref().unwrap_or(&envelope.source)),
        (TIME, &time),
    ];
    let header = |(name, value): (HeaderName, &str)| {
        Some((name, HeaderValue::try_from(encoded(value)).ok()?))
    };
    attributes.into_iter().filter_map(header).collect()
}

/// 3.1.3.2: all but visible ASCII, and quotes and percent signs, percent-encoded.
fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' => text += &format!("%{byte:02X}"),
            _ if byte.is_ascii_graphic() => text.push(byte.into()),
            _ => text += &format!("%{byte:02X}"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_as_the_binding_says() {
        assert_eq!(encoded("evt_1/a:b"), "evt_1/a:b");
        assert_eq!(encoded("Euro € 😀"), "Euro%20%E2%82%AC%20%F0%9F%98%80");
        assert_eq!(encoded("a\"b%c"), "a%22b%25c");
    }
}
