//! Payloads and redaction.

use bytes::Bytes;
use zentra_config::Config;
use zentra_core::event::Envelope;
use zentra_store::journal::Summary;

/// A redacted summary.
pub fn summary(config: &Config, summary: &Summary) -> Summary {
    let mut shown = summary.clone();
    if let Some(source) = config.sources.iter().find(|known| known.name == summary.source) {
        source.redact.context(&mut shown.context);
    }
    shown
}

/// The redacted JSON of a sealed envelope. Its seal is invalid then.
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

/// A redacted body.
pub fn shown(config: &Config, source: &str, body: &Bytes) -> Bytes {
    let known = config.sources.iter().find(|known| known.name == source);
    match known {
        Some(known) => known.redact.body(body),
        // A message without a valid seal, or of a removed source: any source's rules may apply.
        None if config.sources.iter().all(|source| source.redact.shows_bodies()) => body.clone(),
        None => Bytes::from_static(b"[redacted: its source is not in the configuration]"),
    }
}
