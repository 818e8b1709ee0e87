//! Whether a command shows the bytes of a callback, and what of them.

use bytes::Bytes;
use zentra_admin::audit::{self, Actor};
use zentra_admin::payload::shown;
use zentra_config::Config;
use zentra_store::control::OperatorControl;

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
    /// With --body: also what is redacted. The audit log records who has seen it.
    #[arg(long, requires = "body")]
    unredacted: bool,
    /// Who looks; for the audit log.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
}

impl Payload {
    /// The bytes, as they were asked for.
    pub(crate) async fn seen(
        &self,
        control: &impl OperatorControl,
        config: &Config,
        command: &str,
        on: &str,
        source: &str,
        body: &Bytes,
    ) -> Result<Bytes, Failure> {
        if !self.unredacted {
            return Ok(shown(config, source, body));
        }
        let actor = Actor { name: self.by.clone(), reason: String::new() };
        let action = format!("{command} body unredacted");
        audit::looked(control, &action, on, &actor.attribution()).await?;
        Ok(body.clone())
    }
}
