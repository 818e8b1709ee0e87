//! Dead letters.

use axum::Json;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use zentra_admin::dead::PassReport;
use zentra_admin::filter::Filter;
use zentra_admin::list::List;
use zentra_core::lifecycle::DeadReason;
use zentra_store::control::Role;
use zentra_store::journal::Delivery;

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, Query, actor, attached, default_limit, looks, within};
use crate::problem::Problem;

/// Which dead deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Dead {
    /// Only those to this destination.
    destination: Option<String>,
    /// Only this source's.
    source: Option<String>,
    /// Only those that were given up for this reason.
    reason: Option<DeadReason>,
    /// Only those of this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// At most so many of each destination.
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// What was given up, oldest first, and why.
#[utoipa::path(
    get, path = "/v1/dead", tag = "look", params(Dead), security(("token" = [])),
    responses((status = 200, body = List<Delivery>), (status = "default", body = Problem))
)]
pub(super) async fn dead(state: State, Query(asked): Query<Dead>) -> Answer<List<Delivery>> {
    let limit = within(asked.limit)?;
    let reason = asked.reason.map(|reason| reason.as_str().to_owned());
    let Dead { destination, source, kind, .. } = asked;
    let filter = Filter { destination, source, reason, kind, ..Filter::default() };
    Ok(Json(state.dead(&filter, limit).await?.into()))
}

/// The original bytes of a dead letter. For tokens with payloads; each look is in the audit.
#[utoipa::path(
    get, path = "/v1/dead/{id}/body", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "The provider's id, an identity, or a delivery key")),
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
    Ok(attached(state.dead_body(&id, &attribution).await?))
}

/// Dead letters, by name.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Letters {
    /// Providers' ids, identities, or delivery keys: 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    pub(super) ids: Vec<String>,
    /// For the histories and the audit; at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub(super) because: String,
}

/// Sends dead letters back to their work queues: each passes the same seal, claim and attempt as at
/// first, under the same idempotency key.
#[utoipa::path(
    post, path = "/v1/dead/requeue", tag = "act", security(("token" = [])), request_body = Letters,
    responses((status = 200, body = PassReport), (status = "default", body = Problem))
)]
pub(super) async fn requeue(
    who: Who,
    state: State,
    Body(Letters { ids, because }): Body<Letters>,
) -> Answer<PassReport> {
    who.may(Role::Operator)?;
    if !(1..=100).contains(&ids.len()) {
        return Err(Problem::invalid("name 1 to 100 dead letters"));
    }
    Ok(Json(state.requeue_dead(ids, actor(&who, &because)?).await?))
}

/// Takes dead letters out of their queues for good, by name. What is drained can't be re-queued any
/// more; what is archived can be replayed by a job.
#[utoipa::path(
    post, path = "/v1/dead/drain", tag = "act", security(("token" = [])), request_body = Letters,
    responses((status = 200, body = PassReport), (status = "default", body = Problem))
)]
pub(super) async fn drain(
    who: Who,
    state: State,
    Body(Letters { ids, because }): Body<Letters>,
) -> Answer<PassReport> {
    who.may(Role::Operator)?;
    if !(1..=100).contains(&ids.len()) || because.is_empty() {
        return Err(Problem::invalid("name 1 to 100 dead letters, and say why (because)"));
    }
    Ok(Json(state.drain_dead(ids, actor(&who, &because)?).await?))
}
