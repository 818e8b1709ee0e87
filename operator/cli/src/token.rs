//! `zentra token`.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::list::List;
use zentra_admin::tokens::{self, LONGEST, role};
use zentra_core::clock;
use zentra_store::control::{OperatorControl, Role, Token};

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::text::print_json;

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Makes one, and shows it this one time.
    Create(New),
    /// Lists them, without their secrets.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Takes one back.
    Revoke {
        /// As listed.
        id: String,
        #[command(flatten)]
        actor: ActorArgs,
    },
}

/// What a new token is for.
#[derive(clap::Args)]
pub(crate) struct New {
    /// Whose it is: a person or a program, whom the audit log will name.
    name: String,
    /// What its holder may do: a viewer looks, an operator also acts, an admin also sees the audit log.
    #[arg(long, value_enum, default_value = "viewer")]
    role: RoleName,
    /// Its holder may see payloads; each look is audited.
    #[arg(long)]
    payloads: bool,
    /// How long it is valid, like 30days; at most 366 days.
    #[arg(long, default_value = "90days", value_parser = lifetime)]
    expires_in: Duration,
    #[command(flatten)]
    actor: ActorArgs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RoleName {
    Viewer,
    Operator,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Viewer => Self::Viewer,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
        }
    }
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(time) if (Duration::from_secs(1)..=LONGEST).contains(&time) => Ok(time),
        _ => Err("a time from 1s to 366days".into()),
    }
}

pub(crate) async fn command(backend: &impl Backend, command: TokenCommand) -> Result<(), Failure> {
    let control = backend.histories();
    let mut out = std::io::stdout();
    match command {
        TokenCommand::Create(New { name, role, payloads, expires_in, actor }) => {
            let new = tokens::New { name, role: role.into(), payloads, expires_in };
            let (kept, text) = tokens::create(&control, &new, &actor.into()).await?;
            eprintln!("token {} for {}; it isn't shown again:", kept.id, kept.name);
            Ok(writeln!(out, "{text}")?)
        }
        TokenCommand::List { json } => {
            let tokens = control.tokens().await?;
            match json {
                true => print_json(&List::from(tokens), &mut out),
                false => Ok(show(&tokens, &mut out)?),
            }
        }
        TokenCommand::Revoke { id, actor } => {
            tokens::revoke(&control, &id, &actor.into()).await?;
            Ok(writeln!(out, "{id} is revoked")?)
        }
    }
}

/// All of them, for a person: never what they are made of.
fn show(tokens: &[Token], out: &mut impl Write) -> std::io::Result<()> {
    let now = clock::now();
    writeln!(out, "{:<16}  {:<20} {:<8}  {:<8}  EXPIRES", "ID", "NAME", "ROLE", "PAYLOADS")?;
    for Token { id, name, role: may, payloads, expires_at, .. } in tokens {
        let payloads = if *payloads { "yes" } else { "no" };
        let over = if *expires_at <= now { " (over)" } else { "" };
        let may = role(*may);
        writeln!(out, "{id:<16}  {name:<20} {may:<8}  {payloads:<8}  {expires_at}{over}")?;
    }
    Ok(())
}
