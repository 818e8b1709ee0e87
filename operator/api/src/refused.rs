//! Refused callbacks.

use axum::Json;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zentra_admin::refused::RefusedFilter;
use zentra_store::control::Role;

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, Query, actor, attached, default_limit, looks, within};
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

/// Filters for refused callbacks.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Refused {
    /// Only this source.
    source: Option<String>,
    /// Only this reason.
    reason: Option<String>,
    /// Maximum number of items to return (default 100).
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// List refused callbacks, oldest first, without their signatures.
#[utoipa::path(
    get, path = "/v1/refused", tag = "look", params(Refused), security(("token" = [])),
    responses((status = 200, body = List<RefusedCallback>), (status = "default", body = Problem))
)]
pub(super) async fn refused(
    state: State,
    Query(Refused { source, reason, limit }): Query<Refused>,
) -> Answer<List<RefusedCallback>> {
    let wanted = RefusedFilter { ids: Vec::new(), source, reason };
    Ok(Json(state.refused(&wanted, within(limit)?).await?.into()))
}

/// The body of a refused callback. Needs a token with payloads. Each look is audited.
#[utoipa::path(
    get, path = "/v1/refused/{id}/body", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "As listed")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn body(
    who: Who,
    state: State,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let attribution = looks(&who)?;
    Ok(attached(state.refused_body(&id, &attribution).await?))
}

/// Explain why a callback was refused: what is right and wrong with it by the present configuration. No
/// secret and no signature is shown. Only if the server has the sources' secrets.
#[utoipa::path(
    get, path = "/v1/refused/{id}/explain", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "As listed")),
    responses((status = 200, body = Explanation), (status = "default", body = Problem))
)]
pub(super) async fn explain(state: State, Path(id): Path<String>) -> Answer<Explanation> {
    Ok(Json(state.explain(&id).await?.into()))
}

/// An explanation.
#[derive(Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// Whether it verifies by the present configuration.
    pub(crate) verified: bool,
    /// The reason, if it does not.
    pub(crate) reason: Option<&'static str>,
    /// Steps in their order. If one failed, it is the last.
    pub(crate) steps: Vec<Step>,
    /// Probable causes.
    pub(crate) hints: Vec<String>,
}

/// One step of an explanation.
#[derive(Serialize, ToSchema)]
pub(crate) struct Step {
    /// Whether it succeeded.
    pub(crate) good: bool,
    /// What was found.
    pub(crate) found: String,
}

impl From<webhook_verify::Explanation> for Explanation {
    fn from(from: webhook_verify::Explanation) -> Self {
        let step = |step: webhook_verify::Step| Step { good: step.good, found: step.found };
        Self {
            verified: from.refusal.is_none(),
            reason: from.refusal.map(|refusal| refusal.reason()),
            steps: from.steps.into_iter().map(step).collect(),
            hints: from.hints,
        }
    }
}

/// Refused callbacks to admit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Admit {
    /// IDs from the list. Empty: `source` and `reason` select the callbacks.
    #[serde(default)]
    #[schema(max_items = 100)]
    ids: Vec<String>,
    /// Only this source.
    source: Option<String>,
    /// Only this reason.
    reason: Option<String>,
    /// Reason, for the audit log: at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Admit refused callbacks that verify now, at most 100. The others stay refused. Only if the
/// server has the sources' secrets.
#[utoipa::path(
    post, path = "/v1/refused/admit", tag = "act", security(("token" = [])), request_body = Admit,
    responses((status = 200, body = List<Admission>), (status = "default", body = Problem))
)]
pub(super) async fn admit(
    who: Who,
    state: State,
    Body(Admit { ids, source, reason, because }): Body<Admit>,
) -> Answer<List<Admission>> {
    who.may(Role::Operator)?;
    if ids.len() > 100 || (ids.is_empty() && source.is_none()) {
        return Err(Problem::invalid("name 1 to 100 refused callbacks, or a source"));
    }
    let actor = actor(&who, &because)?;
    let wanted = RefusedFilter { ids, source, reason };
    Ok(Json(state.admit(&wanted, default_limit(), &actor).await?.into()))
}

/// A refused callback without its body.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusedRecord {
    /// Version of this record: 1.
    pub(crate) v: u8,
    /// Id, for `zentra refused`.
    pub(crate) id: String,
    /// Name of the source.
    pub(crate) source: String,
    /// Reason of the refusal.
    pub(crate) reason: String,
    /// Time of receipt: when the ingress had read it.
    pub(crate) received_at: Time,
    /// Address of the sender, if it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    /// Method; `None` means POST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) method: Option<String>,
    /// Query, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) query: Option<String>,
    /// Headers. Credentials that verification doesn't need are masked.
    pub(crate) headers: Vec<(String, String)>,
}

impl From<zentra_core::refused::RefusedRecord> for RefusedRecord {
    fn from(from: zentra_core::refused::RefusedRecord) -> Self {
        Self {
            v: from.v,
            id: from.id,
            source: from.source,
            reason: from.reason,
            received_at: from.received_at.into(),
            peer: from.peer.map(|peer| peer.to_string()),
            method: from.method,
            query: from.query,
            headers: from.headers,
        }
    }
}

/// A refused callback with its body.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusedCallback {
    #[serde(flatten)]
    pub(crate) kept: RefusedRecord,
    pub(crate) bytes: usize,
    pub(crate) body_sha256: String,
}

impl From<zentra_admin::refused::RefusedCallback> for RefusedCallback {
    fn from(from: zentra_admin::refused::RefusedCallback) -> Self {
        Self { kept: from.kept.into(), bytes: from.bytes, body_sha256: from.body_sha256 }
    }
}

/// Outcome for one callback.
#[derive(Serialize, ToSchema)]
pub(crate) struct Admission {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) admitted: bool,
    /// Number of events in it.
    pub(crate) events: usize,
    /// Whether it is a handshake. A handshake that is confirmed by a visit to an address is
    /// confirmed now. Any other stays refused with the reason `handshake`: the provider no longer
    /// waits for the answer, and has to send it again.
    pub(crate) handshake: bool,
    /// Why it wasn't admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

impl From<zentra_admin::refused::Outcome> for Admission {
    fn from(from: zentra_admin::refused::Outcome) -> Self {
        Self {
            id: from.id,
            source: from.source,
            admitted: from.admitted,
            events: from.events,
            handshake: from.handshake,
            reason: from.reason,
        }
    }
}
