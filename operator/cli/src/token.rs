//! `zentra token`.

use std::io::Write;
use std::time::Duration;

use clap::Subcommand;
use zentra_admin::Backend;
use zentra_admin::list::List;
use zentra_admin::tokens::{self, LONGEST, role};
use zentra_config::Config;
use zentra_core::clock;
use zentra_store::control::{OperatorControl, Role, Token};

use crate::actor::ActorArgs;
use crate::failure::Failure;
use crate::table;
use crate::text::{print_json, show_newer};

#[derive(Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token, and print it once.
    Create(New),
    /// List tokens, without their secrets.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token.
    Revoke {
        /// The id, from the list.
        id: String,
        #[command(flatten)]
        actor: ActorArgs,
    },
}

/// A new token.
#[derive(clap::Args)]
pub(crate) struct New {
    /// Name of the holder, a person or a program, for the audit log.
    name: String,
    /// Role of the holder: a viewer looks, an operator also acts, an admin also reads the audit
    /// log. A consumer only receives the events of its destinations.
    #[arg(long, value_enum, default_value = "viewer")]
    role: RoleName,
    /// Name of a destination of a consumer. Can be repeated.
    #[arg(long = "destination", value_name = "NAME")]
    destinations: Vec<String>,
    /// Allow payloads to be read. Each look is audited.
    #[arg(long)]
    payloads: bool,
    /// Validity, such as `30days` (maximum: 366 days).
    #[arg(long, default_value = "90days", value_parser = lifetime)]
    expires_in: Duration,
    #[command(flatten)]
    actor: ActorArgs,
}

#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum RoleName {
    Consumer,
    Viewer,
    Operator,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Consumer => Self::Consumer,
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

pub(crate) async fn command(
    config: &Config,
    backend: &impl Backend,
    command: TokenCommand,
) -> Result<(), Failure> {
    let control = backend.histories();
    let mut out = std::io::stdout();
    match command {
        TokenCommand::Create(New { name, role, destinations, payloads, expires_in, actor }) => {
            let role = role.into();
            let new = tokens::New { name, role, payloads, destinations, expires_in };
            let (kept, text) = tokens::create(&control, config, &new, &actor.into()).await?;
            eprintln!("token {} for {}; it is not shown again:", kept.id, kept.name);
            Ok(writeln!(out, "{text}")?)
        }
        TokenCommand::List { json } => {
            let tokens = control.tokens().await?;
            match json {
                true => print_json(&List::from(tokens), &mut out),
                false => {
                    show_newer(&tokens.newer);
                    Ok(show(&tokens.items, &mut out)?)
                }
            }
        }
        TokenCommand::Revoke { id, actor } => {
            tokens::revoke(&control, &id, &actor.into()).await?;
            Ok(writeln!(out, "{id} is revoked")?)
        }
    }
}

/// Prints all tokens, without their secrets.
fn show(tokens: &[Token], out: &mut impl Write) -> std::io::Result<()> {
    let now = clock::now();
    let rows = tokens.iter().map(|token| {
        let Token { id, name, payloads, destinations, expires_at, .. } = token;
        let payloads = match (payloads, &destinations[..]) {
            (true, _) => "yes".to_owned(),
            (false, []) => "no".to_owned(),
            (false, names) => format!("of {}", names.join(", ")),
        };
        let expired = if *expires_at <= now { " (expired)" } else { "" };
        let expires = format!("{expires_at}{expired}");
        [id.clone(), name.clone(), role(token.role).to_string(), payloads, expires]
    });
    table::write(out, ["ID", "NAME", "ROLE", "PAYLOADS", "EXPIRES"], rows)
}
