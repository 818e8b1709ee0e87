//! Dead letters.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zentra_admin::filter::Filter;
use zentra_core::lifecycle;
use zentra_store::control::Role;

use crate::State;
use crate::auth::Who;
use crate::delivery::{DeadReason, Delivery};
use crate::extract::{Answer, Body, Path, Query, actor, attached, default_limit, looks, within};
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

/// Filters for dead deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Dead {
    /// Only this destination.
    destination: Option<String>,
    /// Only this source.
    source: Option<String>,
    /// Only this reason.
    reason: Option<DeadReason>,
    /// Only this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only this error: `answered 503`, or the text of the last attempt's error.
    error: Option<String>,
    /// Maximum number of items for each destination (default 100).
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// List dead deliveries with their reasons, oldest first.
#[utoipa::path(
    get, path = "/v1/dead", tag = "look", params(Dead), security(("token" = [])),
    responses((status = 200, body = List<Delivery>), (status = "default", body = Problem))
)]
pub(super) async fn dead(state: State, Query(asked): Query<Dead>) -> Answer<List<Delivery>> {
    let limit = within(asked.limit)?;
    let reason = asked.reason.map(|reason| lifecycle::DeadReason::from(reason).as_str().to_owned());
    let Dead { destination, source, kind, error, .. } = asked;
    let filter = Filter { destination, source, reason, kind, error, ..Filter::default() };
    Ok(Json(state.dead(&filter, limit).await?.into()))
}

/// The original body of a dead letter. Needs a token with payloads. Each look is audited.
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

/// Dead letters, by id.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Letters {
    /// Providers' event ids, identities or delivery keys: 1 to 100.
    #[schema(min_items = 1, max_items = 100)]
    pub(super) ids: Vec<String>,
    /// Reason, for histories and audit log: at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub(super) because: String,
}

/// Requeue dead letters. Each passes the same checks as a first delivery, under the same
/// idempotency key.
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
    Ok(Json(state.requeue_dead(ids, actor(&who, &because)?).await?.into()))
}

/// Drain dead letters: take them out of their queues for good. A drained letter can't be requeued;
/// a job can replay it from the archive.
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
    Ok(Json(state.drain_dead(ids, actor(&who, &because)?).await?.into()))
}

/// Report of a pass.
#[derive(Serialize, ToSchema)]
pub(crate) struct PassReport {
    /// Whether nothing was changed.
    pub(crate) dry_run: bool,
    /// Letters that were read.
    pub(crate) looked: u64,
    /// Letters that were handled, or would be.
    pub(crate) done: u64,
    /// Number by destination and reason.
    pub(crate) by: BTreeMap<String, u64>,
    /// Receipt of the oldest.
    pub(crate) oldest: Option<Time>,
    /// Selected, but left: suspected replays and conflicts, which are released instead.
    pub(crate) unsuited: u64,
    /// Handled before, and removed now.
    pub(crate) leftover: u64,
    /// Selected, but left: a worker is processing it.
    pub(crate) busy: u64,
}

impl From<zentra_admin::dead::PassReport> for PassReport {
    fn from(from: zentra_admin::dead::PassReport) -> Self {
        Self {
            dry_run: from.dry_run,
            looked: from.looked,
            done: from.done,
            by: from.by,
            oldest: from.oldest.map(Into::into),
            unsuited: from.unsuited,
            leftover: from.leftover,
            busy: from.busy,
        }
    }
}
