//! The caller.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use zentra_store::control;

use crate::State;
use crate::auth::Who;
use crate::extract::Answer;
use crate::problem::Problem;
use crate::time::Time;

/// Show whose token this is, and what it allows.
#[utoipa::path(
    get, path = "/v1/me", tag = "look", security(("token" = [])),
    responses((status = 200, body = Me), (status = "default", body = Problem))
)]
pub(super) async fn me(who: Who, state: State) -> Answer<Me> {
    let control::Token { id, name, role, payloads, expires_at, .. } = who.into_token();
    Ok(Json(Me {
        id,
        name,
        role: role.into(),
        payloads,
        expires_at: expires_at.into(),
        admits: state.admits(),
    }))
}

/// A token, as its holder sees it.
#[derive(Serialize, ToSchema)]
pub(crate) struct Me {
    /// Id of the token.
    pub(crate) id: String,
    /// Name of the holder, as in the audit log.
    pub(crate) name: String,
    pub(crate) role: Role,
    /// Whether it allows payloads.
    pub(crate) payloads: bool,
    pub(crate) expires_at: Time,
    /// Whether this server can admit and explain refused callbacks: it has the sources' secrets.
    pub(crate) admits: bool,
}

/// A role of those that look: each includes the one before.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Receives the events of its destinations, and nothing else.
    Consumer,
    /// Looks; at payloads only if the token allows it.
    Viewer,
    /// Acts.
    Operator,
    /// Reads the audit log.
    Admin,
}

impl From<control::Role> for Role {
    fn from(from: control::Role) -> Self {
        match from {
            control::Role::Consumer => Self::Consumer,
            control::Role::Viewer => Self::Viewer,
            control::Role::Operator => Self::Operator,
            control::Role::Admin => Self::Admin,
        }
    }
}
