//! Whether a command shows the bytes of a callback, and what of them.

use bytes::Bytes;
use zentra_admin::audit::{self, Actor};
use zentra_admin::payload::shown;
use zentra_config::Config;
use zentra_store::control::OperatorControl;

use crate::failure::Failure;

/// Options of commands that show a body.
#[derive(clap::Args)]
pub(crate) struct Payload {
    /// Print the body and nothing else. Redacted fields are hidden. A terminal gets text.
    #[arg(long, conflicts_with = "json")]
    pub(crate) body: bool,
    /// With --body: print the bytes unchanged, also to a terminal, which interprets control
    /// characters.
    #[arg(long, requires = "body")]
    pub(crate) raw: bool,
    /// With --body: show redacted fields too. This is audited.
    #[arg(long, requires = "body")]
    unredacted: bool,
    /// Name of the actor, for the audit log.
    #[arg(long, env = "USER", default_value = "operator")]
    by: String,
}

impl Payload {
    /// The body, as the options ask.
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
