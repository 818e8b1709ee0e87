//! Accepted events that no destination subscribes to.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zentra_store::control::Role;

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, Query, actor, default_limit, within};
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

/// Filters for unrouted events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Unrouted {
    /// Only this source.
    source: Option<String>,
    /// Maximum number of items to return (default 100).
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// List accepted events that no destination subscribes to, oldest first.
#[utoipa::path(
    get, path = "/v1/unrouted", tag = "look", params(Unrouted), security(("token" = [])),
    responses((status = 200, body = List<UnroutedEvent>), (status = "default", body = Problem))
)]
pub(super) async fn unrouted(
    state: State,
    Query(Unrouted { source, limit }): Query<Unrouted>,
) -> Answer<List<UnroutedEvent>> {
    Ok(Json(state.unrouted(source, within(limit)?).await?.into()))
}

/// Unrouted events to route.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// Only this source.
    source: Option<String>,
    /// Maximum number of items to return (default 100).
    #[serde(default = "default_limit")]
    #[schema(minimum = 1, maximum = 1000)]
    limit: usize,
    /// Reason, for the audit log: at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Route unrouted events that a destination subscribes to by now. The others stay.
#[utoipa::path(
    post, path = "/v1/unrouted/requeue", tag = "act", security(("token" = [])),
    request_body = Route,
    responses((status = 200, body = List<UnroutedEvent>), (status = "default", body = Problem))
)]
pub(super) async fn requeue(
    who: Who,
    state: State,
    Body(Route { source, limit, because }): Body<Route>,
) -> Answer<List<UnroutedEvent>> {
    who.may(Role::Operator)?;
    let actor = actor(&who, &because)?;
    Ok(Json(state.requeue_unrouted(source, within(limit)?, actor).await?.into()))
}

/// One of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct UnroutedEvent {
    pub(crate) source: String,
    pub(crate) event_id: Option<String>,
    pub(crate) event_type: Option<String>,
    pub(crate) received_at: Time,
    pub(crate) bytes: usize,
    /// Destinations that subscribe to it by now.
    pub(crate) destinations: Vec<String>,
}

impl From<zentra_admin::unrouted::UnroutedEvent> for UnroutedEvent {
    fn from(from: zentra_admin::unrouted::UnroutedEvent) -> Self {
        Self {
            source: from.source,
            event_id: from.event_id,
            event_type: from.event_type,
            received_at: from.received_at.into(),
            bytes: from.bytes,
            destinations: from.destinations,
        }
    }
}
