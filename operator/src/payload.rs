//! Who sees the bytes of a callback, and what of them.

use bytes::Bytes;
use zentra_shared::clock;
use zentra_shared::config::Config;
use zentra_shared::control::{Act, Control, Said};
use zentra_shared::event::Envelope;
use zentra_shared::journal::Summary;

use crate::failure::Failure;

/// Whether a command shows the bytes.
#[derive(clap::Args)]
pub(crate) struct Payload {
    /// Writes the bytes and nothing else, without what their source redacts. A terminal gets them as text.
    #[arg(long, conflicts_with = "json")]
    pub(crate) body: bool,
    /// With --body: the bytes as they are, also to a terminal, which obeys control characters in them.
    #[arg(long, requires = "body")]
    pub(crate) raw: bool,
    /// With --body: also what is redacted. It is noted in the audit who has seen it.
    #[arg(long, requires = "body")]
    unredacted: bool,
    /// Who looks; for the audit.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
}

impl Payload {
    /// The bytes, as they were asked for.
    pub(crate) async fn seen(
        &self,
        control: &impl Control,
        config: &Config,
        command: &str,
        on: &str,
        source: &str,
        body: &Bytes,
    ) -> Result<Bytes, Failure> {
        if !self.unredacted {
            return Ok(shown(config, source, body));
        }
        let said = Said { by: self.by.clone(), at: clock::now(), because: String::new() };
        let action = format!("{command} --body --unredacted");
        let act = Act { action, on: on.to_owned(), result: String::new(), said };
        control.audit(&act).await?;
        Ok(body.clone())
    }
}

/// What is known of an event without what its source redacts.
pub(crate) fn summary(config: &Config, summary: &Summary) -> Summary {
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
pub(crate) fn shown(config: &Config, source: &str, body: &Bytes) -> Bytes {
    let known = config.sources.iter().find(|known| known.name == source);
    match known {
        Some(known) => known.redact.body(body),
        // A stranger's message, or of a source that is gone: it may be any source's.
        None if config.sources.iter().all(|source| source.redact.shows_bodies()) => body.clone(),
        None => Bytes::from_static(b"[redacted: its source isn't in the config]"),
    }
}
