//! Who acts, and why, as the command line takes it.

use zentra_admin::audit::{self, Actor};

/// The actor of an action, and the reason.
#[derive(clap::Args, Clone)]
pub(crate) struct ActorArgs {
    /// Reason, for the audit log.
    #[arg(long, value_name = "WHY", default_value = "", value_parser = reason)]
    pub(crate) because: String,
    /// Name of the actor, for the audit log.
    #[arg(long, env = "USER", default_value = "operator")]
    pub(crate) by: String,
}

impl From<ActorArgs> for Actor {
    fn from(ActorArgs { because, by }: ActorArgs) -> Self {
        Self { name: by, reason: because }
    }
}

pub(crate) fn reason(text: &str) -> Result<String, String> {
    audit::reason(text).map_err(|error| error.message)
}
