//! Refused callbacks.

use axum::Json;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use zentra_admin::list::List;
use zentra_admin::refused::{Outcome, RefusedCallback, RefusedFilter};
use zentra_store::control::Role;

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, Query, actor, attached, default_limit, looks, within};
use crate::problem::Problem;

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
    responses((status = 200, body = List<Outcome>), (status = "default", body = Problem))
)]
pub(super) async fn admit(
    who: Who,
    state: State,
    Body(Admit { ids, source, reason, because }): Body<Admit>,
) -> Answer<List<Outcome>> {
    who.may(Role::Operator)?;
    if ids.len() > 100 || (ids.is_empty() && source.is_none()) {
        return Err(Problem::invalid("name 1 to 100 refused callbacks, or a source"));
    }
    let actor = actor(&who, &because)?;
    let wanted = RefusedFilter { ids, source, reason };
    Ok(Json(state.admit(&wanted, default_limit(), &actor).await?.into()))
}
