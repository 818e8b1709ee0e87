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

/// Prefix of a code that signs in to the console.
const CODE: &str = "zentra_code_";

/// Validity of a code that `zentra console open` prints.
pub const CODE_LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Validity of the token of somebody who has signed in to the console.
pub const SESSION_LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Maximum validity of a token.
pub const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// Between the name of an operator and that of a sign-in.
const OF_CONSOLE: &str = "-console-";

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
    let (token, secret) = make(control, new, Use::Many, actor).await?;
    let text = format!("{PREFIX}{}_{secret}", token.id);
    Ok((token, text))
}

/// Creates a code that signs in to the console once, with this role. Tokens of former sign-ins that have
/// expired are removed.
///
/// # Errors
/// Those of the store.
pub async fn create_code(
    control: &impl OperatorControl,
    role: Role,
    payloads: bool,
    lifetime: Duration,
    actor: &Actor,
) -> Result<String, AdminError> {
    let now = clock::now();
    for token in control.tokens().await?.items {
        if (token.once || token.session) && token.expires_at <= now {
            control.revoke(&token.id).await?;
        }
    }
    let name = format!("{}{OF_CONSOLE}{}", actor.name, hex::encode(rand::random::<[u8; 3]>()));
    let new = New { name, role, payloads, destinations: Vec::new(), expires_in: lifetime };
    let (token, secret) = make(control, &new, Use::Code, actor).await?;
    Ok(format!("{CODE}{}_{secret}", token.id))
}

/// Exchanges a code for a token with the same name and rights, which is valid for
/// [`SESSION_LIFETIME`]. `None` if the code is not valid, or was used.
///
/// # Errors
/// Those of the store.
pub async fn sign_in(
    control: &impl OperatorControl,
    code: &str,
) -> Result<Option<(Token, String)>, AdminError> {
    let Some(used) = find(control, code.strip_prefix(CODE)).await?.filter(|token| token.once)
    else {
        return Ok(None);
    };
    // Of two who use it together, one gets in.
    if !control.revoke(&used.id).await? {
        return Ok(None);
    }
    let Token { name, role, payloads, made, .. } = used;
    let new = New { name, role, payloads, destinations: Vec::new(), expires_in: SESSION_LIFETIME };
    let actor = Actor { name: made.by, reason: "sign-in to the console".into() };
    let (token, secret) = make(control, &new, Use::Session, &actor).await?;
    let text = format!("{PREFIX}{}_{secret}", token.id);
    Ok(Some((token, text)))
}

/// What a token is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// Requests, until it expires.
    Many,
    /// One sign-in to the console.
    Code,
    /// Requests of the console, until its sign-out.
    Session,
}

/// Stores a new token, and returns it with its secret.
async fn make(
    control: &impl OperatorControl,
    new: &New,
    of: Use,
    actor: &Actor,
) -> Result<(Token, String), AdminError> {
    let once = of == Use::Code;
    name_is_free(control, &new.name, None).await?;
    let mut random = [0; 40];
    rand::rng().fill_bytes(&mut random);
    let (id, secret) = random.split_at(8);
    let (id, secret) = (hex::encode(id), URL_SAFE_NO_PAD.encode(secret));
    let made = actor.attribution();
    let token = Token {
        digest: digest(&secret, once),
        name: new.name.clone(),
        role: new.role,
        payloads: new.payloads,
        destinations: new.destinations.clone(),
        once,
        session: of == Use::Session,
        expires_at: made.at.plus(new.expires_in),
        made,
        id,
    };
    let (role, id) = (role(token.role), &token.id);
    let payloads = if token.payloads { " with payloads" } else { "" };
    let destinations = match &token.destinations[..] {
        [] => String::new(),
        names => format!(" of {}", names.join(", ")),
    };
    let on = format!(
        "{id} for {}, as {role}{destinations}{payloads}, until {}",
        token.name, token.expires_at
    );
    let attribution = token.made.clone();
    let action = if once { "console open" } else { "token create" };
    let audited = Audited { control: Some(control), action, on, attribution };
    // Whoever creates one of this name at the same time sees ours, or we see theirs: a name of two is
    // given up again, perhaps by both.
    let keep = async {
        control.keep_token(&token).await?;
        let free = name_is_free(control, &token.name, Some(&token.id)).await;
        if free.is_err() {
            control.revoke(&token.id).await?;
        }
        free
    };
    audited.run(keep, |()| "made".into()).await?;
    Ok((token, secret))
}

/// That no valid token but `own` has this name.
async fn name_is_free(
    control: &impl OperatorControl,
    name: &str,
    own: Option<&str>,
) -> Result<(), AdminError> {
    let (all, now) = (control.tokens().await?, clock::now());
    let is_other = |one: &&Token| Some(&*one.id) != own && one.name == name && now < one.expires_at;
    match all.items.iter().find(is_other) {
        None => Ok(()),
        Some(other) => {
            let message = format!("token {} already has the name {name}.", other.id);
            Err(AdminError::new(ErrorCode::TokenNameTaken, message)
                .hint("Choose another name, or revoke that token.")
                .about(&other.id))
        }
    }
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

/// Ends a session of the console: its token is revoked. `false` if the token is not of one.
///
/// # Errors
/// Those of [`revoke`].
pub async fn sign_out(control: &impl OperatorControl, token: &Token) -> Result<bool, AdminError> {
    if token.session {
        let actor = Actor { name: token.name.clone(), reason: "sign-out of the console".into() };
        revoke(control, &token.id, &actor).await?;
    }
    Ok(token.session)
}

/// The token that a text is, if it is one of ours and valid now.
pub async fn verify(
    control: &impl OperatorControl,
    text: &str,
) -> Result<Option<Token>, AdminError> {
    let found = find(control, text.strip_prefix(PREFIX)).await?;
    Ok(found.filter(|token| !token.once))
}

/// The valid token of this id and secret.
async fn find(
    control: &impl OperatorControl,
    parts: Option<&str>,
) -> Result<Option<Token>, AdminError> {
    let parts = parts.and_then(|rest| rest.split_once('_'));
    let Some((id, secret)) = parts.filter(|(id, _)| id.len() == 16) else { return Ok(None) };
    let found = control.token(id).await?;
    let fits = |token: &Token| {
        let own = digest(secret, token.once);
        let same: bool = token.digest.as_bytes().ct_eq(own.as_bytes()).into();
        same && clock::now() < token.expires_at
    };
    Ok(found.filter(fits))
}

/// The digest of a code differs from that of a token with the same secret: an older version, which does not
/// know codes, takes it for no token.
fn digest(secret: &str, once: bool) -> String {
    let domain = if once { "code:" } else { "" };
    hex::encode(Sha256::digest(format!("{domain}{secret}")))
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use zentra_store::stored::Listing;

    use tokio::sync::Barrier;
    use zentra_store::control::{Attribution, AuditEntry, ControlAction, DesiredStates, Heartbeat};
    use zentra_store::journal::JournalError;

    use super::*;
    use crate::fakes::Fakes;

    /// Tokens in memory. Two who look for the first time see the same.
    #[derive(Clone)]
    struct Together {
        all: Arc<Mutex<Vec<Token>>>,
        first_look: Arc<Barrier>,
        looks: Arc<Mutex<usize>>,
    }

    impl Together {
        fn new(together: usize) -> Self {
            let first_look = Arc::new(Barrier::new(together));
            Self { all: Arc::default(), first_look, looks: Arc::default() }
        }
    }

    impl OperatorControl for Together {
        async fn workers(&self) -> Result<Listing<Heartbeat>, JournalError> {
            Ok(Listing::default())
        }

        async fn desired_states(&self) -> Result<DesiredStates, JournalError> {
            Ok(DesiredStates::default())
        }

        async fn apply(
            &self,
            _: &str,
            _: ControlAction,
            _: Option<&Attribution>,
        ) -> Result<(), JournalError> {
            Ok(())
        }

        async fn audit(&self, _: &AuditEntry) -> Result<(), JournalError> {
            Ok(())
        }

        async fn keep_token(&self, token: &Token) -> Result<(), JournalError> {
            self.all.lock().unwrap().push(token.clone());
            Ok(())
        }

        async fn token(&self, id: &str) -> Result<Option<Token>, JournalError> {
            Ok(self.all.lock().unwrap().iter().find(|one| one.id == id).cloned())
        }

        async fn tokens(&self) -> Result<Listing<Token>, JournalError> {
            let all = self.all.lock().unwrap().clone();
            let look = {
                let mut looks = self.looks.lock().unwrap();
                *looks += 1;
                *looks
            };
            if look <= 2 {
                self.first_look.wait().await;
            }
            Ok(Listing { items: all, newer: Vec::new() })
        }

        async fn revoke(&self, id: &str) -> Result<bool, JournalError> {
            let mut all = self.all.lock().unwrap();
            let before = all.len();
            all.retain(|one| one.id != id);
            Ok(all.len() < before)
        }

        async fn audited(&self, _: usize) -> Result<Listing<AuditEntry>, JournalError> {
            Ok(Listing::default())
        }
    }

    #[tokio::test]
    async fn two_who_create_one_name_together_do_not_both_have_it() {
        let control = Together::new(2);
        let config = Fakes::new().config;
        let new = New {
            name: "ada".into(),
            role: Role::Viewer,
            payloads: false,
            destinations: Vec::new(),
            expires_in: Duration::from_secs(60),
        };
        let actor = Actor { name: "root".into(), reason: String::new() };
        let (one, other) = tokio::join!(
            create(&control, &config, &new, &actor),
            create(&control, &config, &new, &actor)
        );
        let given: Vec<_> = [one, other].into_iter().flatten().map(|(token, _)| token.id).collect();
        let valid: Vec<_> = control.all.lock().unwrap().iter().map(|one| one.id.clone()).collect();
        assert!(valid.len() <= 1, "{valid:?}");
        assert_eq!(given, valid);
        let again = create(&control, &config, &new, &actor).await;
        assert_eq!(again.is_ok(), valid.is_empty());
    }

    #[tokio::test]
    async fn a_code_signs_in_once_and_is_no_token() {
        let control = Together::new(1);
        let actor = Actor { name: "ada".into(), reason: String::new() };
        let code =
            create_code(&control, Role::Operator, true, CODE_LIFETIME, &actor).await.unwrap();
        assert_eq!(verify(&control, &code).await.unwrap(), None);
        let as_token = code.replacen(CODE, PREFIX, 1);
        assert_eq!(verify(&control, &as_token).await.unwrap(), None);
        assert_eq!(sign_in(&control, &as_token).await.unwrap(), None);

        let (one, other) = tokio::join!(sign_in(&control, &code), sign_in(&control, &code));
        let given: Vec<_> = [one, other].into_iter().filter_map(Result::unwrap).collect();
        let [(token, text)] = &given[..] else { panic!("{given:?}") };
        assert_eq!((token.role, token.payloads), (Role::Operator, true));
        assert!(token.name.starts_with("ada-console-"), "{}", token.name);
        assert_eq!(verify(&control, text).await.unwrap().as_ref(), Some(token));
        assert_eq!(sign_in(&control, &code).await.unwrap(), None);
        assert_eq!(sign_in(&control, text).await.unwrap(), None, "a token is no code");

        // An expired one is removed by the next.
        control.all.lock().unwrap()[0].expires_at = clock::now();
        create_code(&control, Role::Viewer, false, CODE_LIFETIME, &actor).await.unwrap();
        assert_eq!(control.all.lock().unwrap().len(), 1);
    }
}
