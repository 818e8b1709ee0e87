//! `zentra token`: who may ask the operators' API. A token is shown once, when it is made; what is
//! kept of it is a digest.

use std::io::Write;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zentra_shared::clock;
use zentra_shared::control::{Control, Role, Token};

use crate::backend::Backend;
use crate::cli::TokenCommand;
use crate::control::{Asked, Audited};
use crate::failure::Failure;
use crate::list::List;
use crate::print_json;

/// How a token begins: secret scanners know it by that.
const PREFIX: &str = "zentra_";

/// What a new one is for.
#[derive(clap::Args)]
pub(crate) struct New {
    /// Whose it is: a person or a program, whom the audit will name.
    name: String,
    /// What its holder may do: a viewer looks, an operator also acts, an admin also sees the audit.
    #[arg(long, value_enum, default_value = "viewer")]
    role: RoleName,
    /// He may see payloads; each look is audited.
    #[arg(long)]
    payloads: bool,
    /// How long it is good for, like 30days; a year at most.
    #[arg(long, default_value = "90days", value_parser = lifetime)]
    expires_in: Duration,
    #[command(flatten)]
    asked: Asked,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RoleName {
    Viewer,
    Operator,
    Admin,
}

fn lifetime(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);
    match humantime::parse_duration(text) {
        Ok(time) if (Duration::from_secs(1)..=LONGEST).contains(&time) => Ok(time),
        _ => Err("a time from 1s to 366days".into()),
    }
}

/// Makes one, and gives what is kept and the token itself. No two that are good have one name: the audit
/// tells who it was by that.
pub(crate) async fn create(control: &impl Control, new: &New) -> Result<(Token, String), Failure> {
    let (all, now) = (control.tokens().await?, clock::now());
    if let Some(other) = all.iter().find(|one| one.name == new.name && now < one.expires_at) {
        return Err(Failure::Asked(format!(
            "token {} is {}'s already.\nGive another name, or revoke it: zentra token revoke {}.",
            other.id, other.name, other.id
        )));
    }
    let mut random = [0; 40];
    rand::rng().fill_bytes(&mut random);
    let (id, secret) = random.split_at(8);
    let (id, secret) = (hex::encode(id), URL_SAFE_NO_PAD.encode(secret));
    let made = new.asked.said();
    let token = Token {
        digest: digest(&secret),
        name: new.name.clone(),
        role: match new.role {
            RoleName::Viewer => Role::Viewer,
            RoleName::Operator => Role::Operator,
            RoleName::Admin => Role::Admin,
        },
        payloads: new.payloads,
        expires_at: made.at.plus(new.expires_in),
        made,
        id,
    };
    let (role, id) = (role(token.role), &token.id);
    let payloads = if token.payloads { " with payloads" } else { "" };
    let on = format!("{id} for {}, as {role}{payloads}, until {}", token.name, token.expires_at);
    let said = token.made.clone();
    let audited = Audited { control: Some(control), action: "token create", on, said };
    let keep = async { Ok(control.keep_token(&token).await?) };
    audited.run(keep, |()| "made".into()).await?;
    let text = format!("{PREFIX}{id}_{secret}");
    Ok((token, text))
}

/// Takes one back: from now on it is good for nothing.
pub(crate) async fn revoke(control: &impl Control, id: &str, asked: &Asked) -> Result<(), Failure> {
    let (on, said) = (id.to_owned(), asked.said());
    let audited = Audited { control: Some(control), action: "token revoke", on, said };
    let unknown =
        || Failure::Asked(format!("there is no token {id}.\nSee zentra token list for the ids."));
    let revoke = async {
        match control.revoke(id).await? {
            true => Ok(()),
            false => Err(unknown()),
        }
    };
    audited.run(revoke, |()| "revoked".into()).await
}

/// The token that a text is, if it is one of ours and good now.
pub(crate) async fn verify(control: &impl Control, text: &str) -> Result<Option<Token>, Failure> {
    let parts = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
    let Some((id, secret)) = parts.filter(|(id, _)| id.len() == 16) else { return Ok(None) };
    let found = control.token(id).await?;
    let own = digest(secret);
    let fits = |token: &Token| {
        let same: bool = token.digest.as_bytes().ct_eq(own.as_bytes()).into();
        same && clock::now() < token.expires_at
    };
    Ok(found.filter(fits))
}

fn digest(secret: &str) -> String {
    hex::encode(Sha256::digest(secret))
}

/// A role's name.
pub(crate) fn role(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// All of them, for a person: never what they are made of.
pub(crate) fn show(tokens: &[Token], out: &mut impl Write) -> std::io::Result<()> {
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

pub(crate) async fn command(backend: &impl Backend, command: TokenCommand) -> Result<(), Failure> {
    let control = backend.histories()?;
    let mut out = std::io::stdout();
    match command {
        TokenCommand::Create(new) => {
            let (kept, text) = create(&control, &new).await?;
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
        TokenCommand::Revoke { id, asked } => {
            revoke(&control, &id, &asked).await?;
            Ok(writeln!(out, "{id} is revoked")?)
        }
    }
}
