//! Tokens for the HTTP API. A token is shown once, when it is created; only a digest of it is kept.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zentra_config::Config;
use zentra_core::clock;
use zentra_store::control::{OperatorControl, Role, Token};

use crate::audit::{Actor, Audited};
use crate::error::{AdminError, ErrorCode};
use crate::filter;

/// Prefix of a token, for secret scanners.
const PREFIX: &str = "zentra_";

/// Maximum validity of a token.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// A new token.
pub struct New {
    /// Name of the holder, a person or a program, for the audit log.
    pub name: String,
    /// Role of the holder.
    pub role: Role,
    /// Whether its holder may read payloads.
    pub payloads: bool,
    /// Names of the destinations of a consumer. Other roles have none.
    pub destinations: Vec<String>,
    /// Validity, at most [`LONGEST`].
    pub expires_in: Duration,
}

/// Creates a token; returns what is kept, and the token itself. No two valid tokens have one name, since the
/// audit log names them by it.
///
/// # Errors
/// [`ErrorCode::TokenNameTaken`]; [`ErrorCode::InvalidRequest`] if a consumer has no destination, or another
/// role has one; [`ErrorCode::DestinationNotFound`].
pub async fn create(
    control: &impl OperatorControl,
    config: &Config,
    new: &New,
    actor: &Actor,
) -> Result<(Token, String), AdminError> {
    destinations_fit(config, new)?;
    let (all, now) = (control.tokens().await?, clock::now());
    if let Some(other) = all.iter().find(|one| one.name == new.name && now < one.expires_at) {
        let message = format!("token {} already has the name {}.", other.id, other.name);
        return Err(AdminError::new(ErrorCode::TokenNameTaken, message)
            .hint("Choose another name, or revoke that token.")
            .about(&other.id));
    }
    let mut random = [0; 40];
    rand::rng().fill_bytes(&mut random);
    let (id, secret) = random.split_at(8);
    let (id, secret) = (hex::encode(id), URL_SAFE_NO_PAD.encode(secret));
    let made = actor.attribution();
    let token = Token {
        digest: digest(&secret),
        name: new.name.clone(),
        role: new.role,
        payloads: new.payloads,
        destinations: new.destinations.clone(),
        expires_at: made.at.plus(new.expires_in),
        made,
        id,
    };
    let (role, id) = (role(token.role), &token.id);
    let payloads = if token.payloads { " with payloads" } else { "" };
    let of = match &token.destinations[..] {
        [] => String::new(),
        names => format!(" of {}", names.join(", ")),
    };
    let on =
        format!("{id} for {}, as {role}{of}{payloads}, until {}", token.name, token.expires_at);
    let attribution = token.made.clone();
    let audited = Audited { control: Some(control), action: "token create", on, attribution };
    let keep = async { Ok(control.keep_token(&token).await?) };
    audited.run(keep, |()| "made".into()).await?;
    let text = format!("{PREFIX}{id}_{secret}");
    Ok((token, text))
}

fn destinations_fit(config: &Config, new: &New) -> Result<(), AdminError> {
    let is_consumer = new.role == Role::Consumer;
    let invalid = |message| Err(AdminError::new(ErrorCode::InvalidRequest, message));
    if is_consumer && new.destinations.is_empty() {
        return invalid("a consumer needs at least one destination.");
    }
    if !is_consumer && !new.destinations.is_empty() {
        return invalid("only a consumer has destinations: other roles see all of them.");
    }
    if is_consumer && new.payloads {
        return invalid(
            "a consumer receives the payloads of its destinations, and looks at no others.",
        );
    }
    for name in &new.destinations {
        filter::destinations(config, Some(name))?;
    }
    Ok(())
}

/// Revokes a token at once.
///
/// # Errors
/// [`ErrorCode::TokenNotFound`].
pub async fn revoke(
    control: &impl OperatorControl,
    id: &str,
    actor: &Actor,
) -> Result<(), AdminError> {
    let (on, attribution) = (id.to_owned(), actor.attribution());
    let audited = Audited { control: Some(control), action: "token revoke", on, attribution };
    let unknown =
        || AdminError::new(ErrorCode::TokenNotFound, format!("unknown token {id}.")).about(id);
    let revoke = async {
        match control.revoke(id).await? {
            true => Ok(()),
            false => Err(unknown()),
        }
    };
    audited.run(revoke, |()| "revoked".into()).await
}

/// The token that a text is, if it is one of ours and valid now.
pub async fn verify(
    control: &impl OperatorControl,
    text: &str,
) -> Result<Option<Token>, AdminError> {
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
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Consumer => "consumer",
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}
