//! Tokens, without their secrets. They are created on the command line only: a stolen session cannot make one that
//! outlives it.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use zentra_store::control;

use crate::State;
use crate::audit::Attribution;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, Reason, actor};
use crate::list::List;
use crate::me::Role;
use crate::problem::Problem;
use crate::time::Time;

/// List tokens and codes for the console, without their secrets. Needs the role admin.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "look", security(("token" = [])),
    responses((status = 200, body = List<TokenDetails>), (status = "default", body = Problem))
)]
pub(super) async fn tokens(who: Who, state: State) -> Answer<List<TokenDetails>> {
    who.may(control::Role::Admin)?;
    Ok(Json(state.tokens().await?.into()))
}

/// Revoke a token at once. Needs the role admin.
#[utoipa::path(
    post, path = "/v1/tokens/{id}/revoke", tag = "act", params(("id" = String, Path)),
    security(("token" = [])), request_body = Reason,
    responses((status = 200, body = Revoked), (status = "default", body = Problem))
)]
pub(super) async fn revoke(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Body(Reason { because }): Body<Reason>,
) -> Answer<Revoked> {
    who.may(control::Role::Admin)?;
    state.revoke_token(&id, &actor(&who, &because)?).await?;
    Ok(Json(Revoked { revoked: true }))
}

/// End a session of the console: its token is revoked. A token that `zentra token create` made stays valid.
#[utoipa::path(
    post, path = "/v1/me/sign-out", tag = "act", security(("token" = [])),
    responses((status = 200, body = Revoked), (status = "default", body = Problem))
)]
pub(super) async fn sign_out(who: Who, state: State) -> Answer<Revoked> {
    Ok(Json(Revoked { revoked: state.sign_out(&who.into_token()).await? }))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Revoked {
    pub(crate) revoked: bool,
}

/// A token, without its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenDetails {
    pub(crate) id: String,
    /// Name of the holder, as in the audit log.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Whether it allows payloads.
    pub(crate) payloads: bool,
    /// Destinations of a consumer.
    pub(crate) destinations: Vec<String>,
    /// Whether it is a code that signs in to the console, once.
    pub(crate) once: bool,
    pub(crate) expires_at: Time,
    /// Who created it.
    pub(crate) created: Attribution,
}

impl From<control::Token> for TokenDetails {
    fn from(from: control::Token) -> Self {
        let control::Token {
            id, name, role, payloads, destinations, once, expires_at, made, ..
        } = from;
        Self {
            id,
            name,
            role: role.into(),
            payloads,
            destinations,
            once,
            expires_at: expires_at.into(),
            created: made.into(),
        }
    }
}
