//! Who sees the bytes of a callback, and what of them.

use bytes::Bytes;
use zentra_config::Config;
use zentra_core::event::Envelope;
use zentra_store::journal::Summary;

/// What is known of an event without what its source redacts.
pub fn summary(config: &Config, summary: &Summary) -> Summary {
    let mut shown = summary.clone();
    if let Some(source) = config.sources.iter().find(|known| known.name == summary.source) {
        source.redact.context(&mut shown.context);
    }
    shown
}

/// A sealed envelope's JSON without what its source redacts: then the seal doesn't fit it any more.
pub(crate) fn envelope(config: &Config, json: &[u8]) -> String {
    let text = || String::from_utf8_lossy(json).into_owned();
    let Ok(mut envelope) = serde_json::from_slice::<Envelope>(json) else { return text() };
    let source = config.sources.iter().find(|known| known.name == envelope.source);
    let Some(source) = source else { return text() };
    let before = envelope.context.clone();
    source.redact.context(&mut envelope.context);
    match envelope.context == before {
        true => text(),
        false => serde_json::to_string(&envelope).unwrap_or_default(),
    }
}

/// What of a body anyone may see who may see bodies.
pub fn shown(config: &Config, source: &str, body: &Bytes) -> Bytes {
    let known = config.sources.iter().find(|known| known.name == source);
    match known {
        Some(known) => known.redact.body(body),
        // A stranger's message, or of a source that is gone: it may be any source's.
        None if config.sources.iter().all(|source| source.redact.shows_bodies()) => body.clone(),
        None => Bytes::from_static(b"[redacted: its source isn't in the config]"),
    }
}
