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

/// File with the address of the console of the `zentra dev` that runs here.
pub(crate) const OF_DEV: &str = ".zentra/console";

/// Where the console is, if nothing else is said.
pub(crate) const ADDRESS: &str = "127.0.0.1:9470";

#[derive(Subcommand)]
pub(crate) enum ConsoleCommand {
    /// Print a link that signs in to the console once, within 10 minutes. It gives the browser's tab a
    /// token that is valid for 12 hours.
    Open {
        /// Address of zentra serve or zentra standalone, as a browser reaches it (default: that of zentra dev
        /// if it runs in this folder, otherwise http://127.0.0.1:9470).
        #[arg(long, value_name = "URL")]
        at: Option<Uri>,
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
    let at = match at {
        Some(at) => at,
        None => here().await,
    };
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

/// The console on this machine: of `zentra dev`, or where `zentra serve` has it. Says if nothing listens there.
async fn here() -> Uri {
    let of_dev = std::fs::read_to_string(OF_DEV).ok().and_then(|text| text.trim().parse().ok());
    if let Some(at) = of_dev.filter(|at: &Uri| is_this_machine(at.host().unwrap_or_default()))
        && listens(&at).await
    {
        return at;
    }
    let at = Uri::from_static("http://127.0.0.1:9470");
    if !listens(&at).await {
        eprintln!(
            "Nothing listens at {at}. Start zentra serve, or zentra standalone --console {ADDRESS}; or name \
             its address with --at."
        );
    }
    at
}

async fn listens(at: &Uri) -> bool {
    let Some(authority) = at.authority() else { return false };
    let connect = tokio::net::TcpStream::connect(authority.as_str());
    matches!(tokio::time::timeout(Duration::from_secs(2), connect).await, Ok(Ok(_)))
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
