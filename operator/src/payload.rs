//! Who sees the bytes of a callback, and what of them.

use bytes::Bytes;
use zentra_shared::clock;
use zentra_shared::config::Config;
use zentra_shared::control::{Act, Control, Said};

use crate::failure::Failure;

/// Whether a command shows the bytes.
#[derive(clap::Args)]
pub(crate) struct Payload {
    /// Writes the bytes and nothing else, without what their source redacts.
    #[arg(long, conflicts_with = "json")]
    pub(crate) body: bool,
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
