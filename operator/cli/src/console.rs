//! `zentra console`: a link that signs in to the console.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use http::Uri;
use zentra_admin::audit::Actor;
use zentra_admin::{Backend, tokens};
use zentra_core::address::is_this_machine;
use zentra_store::control::Role;

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::text;
use crate::token::RoleName;

/// Where the console is, if nothing else is said.
pub(crate) const ADDRESS: &str = "127.0.0.1:9470";

#[derive(Subcommand)]
pub(crate) enum ConsoleCommand {
    /// Print a link that signs in to the console once, within 10 minutes. It gives the browser's tab a
    /// token that is valid for 12 hours.
    Open {
        /// Address of zentra serve or zentra standalone, as a browser reaches it.
        #[arg(long, default_value = "http://127.0.0.1:9470", value_name = "URL")]
        at: Uri,
        /// Role in the console: a viewer looks, an operator also acts, an admin also reads the audit
        /// log.
        #[arg(long, value_enum, default_value = "operator")]
        role: RoleName,
        /// Allow payloads to be read. Each look is audited.
        #[arg(long)]
        payloads: bool,
        #[command(flatten)]
        actor: ActorArgs,
    },
}

pub(crate) async fn command(
    backend: &impl Backend,
    command: ConsoleCommand,
) -> Result<(), Failure> {
    let ConsoleCommand::Open { at, role, payloads, actor } = command;
    let host = at.host().unwrap_or_default();
    if at.scheme_str() != Some("https") && !is_this_machine(host) {
        return Err(Failure::Asked(format!(
            "{at} is on another machine, and not encrypted: whoever sees the link gets in.\nGive an https:// \
             address with --at."
        )));
    }
    let role = Role::from(role);
    if role == Role::Consumer {
        return Err(Failure::Asked(
            "a consumer sees nothing in the console.\nUse --role viewer, operator or admin.".into(),
        ));
    }
    let lifetime = tokens::CODE_LIFETIME;
    let link = link(backend, &at.to_string(), role, payloads, lifetime, &actor.into()).await?;
    Ok(writeln!(text::stdout(), "{link}")?)
}

/// A link that signs in once.
pub(crate) async fn link(
    backend: &impl Backend,
    at: &str,
    role: Role,
    payloads: bool,
    lifetime: Duration,
    actor: &Actor,
) -> Result<String, Failure> {
    let code = tokens::create_code(&backend.histories(), role, payloads, lifetime, actor).await?;
    // Behind the #, it is not sent to the server, and in no log.
    Ok(format!("{}/#code={code}", at.trim_end_matches('/')))
}
