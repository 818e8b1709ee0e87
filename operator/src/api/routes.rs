//! The routes: what each takes, who may ask, and what it answers.

use axum::Json;
use axum::extract::{FromRequest, FromRequestParts};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use zentra_shared::clock::Timestamp;
use zentra_shared::control::{Act, Beat, Role};
use zentra_shared::journal::Delivery;
use zentra_shared::journal::list::{Page, Query as Asking};
use zentra_shared::lifecycle::{DeadReason, State as Standing};

use super::State;
use super::auth::Who;
use super::problem::Problem;
use super::queues::attached;
use crate::control::{self, Asked, Deed};
use crate::dead::{Filter, Tally};
use crate::event::Found;
use crate::list::List;
use crate::status::Status;

/// A query string, or what is wrong with it.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub(super) struct Query<T>(pub(super) T);

/// A part of the path, or what is wrong with it.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub(super) struct Path<T>(pub(super) T);

/// A body, or what is wrong with it.
#[derive(FromRequest)]
#[from_request(via(axum::Json), rejection(Problem))]
pub(super) struct Body<T>(pub(super) T);

pub(super) type Answer<T> = Result<Json<T>, Problem>;

/// Whether all is well: parts, sources, destinations, and what is wrong.
#[utoipa::path(
    get, path = "/v1/status", tag = "look", security(("token" = [])),
    responses((status = 200, body = Status), (status = "default", body = Problem))
)]
pub(super) async fn status(state: State) -> Answer<Status> {
    Ok(Json(state.status().await?))
}

/// The status, for Prometheus.
#[utoipa::path(
    get, path = "/v1/metrics", tag = "look", security(("token" = [])),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn metrics(state: State) -> Result<String, Problem> {
    let text = crate::status::metrics(&state.status().await?);
    text.map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

/// Which deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Events {
    /// Only this source's.
    source: Option<String>,
    /// Only those to this destination.
    destination: Option<String>,
    /// Only those of this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only those that stand so.
    state: Option<Standing>,
    /// Only those that are dead for this reason.
    reason: Option<DeadReason>,
    /// Only those that a worker took up then or later: RFC 3339, or milliseconds since 1970.
    since: Option<Timestamp>,
    /// Only those that a worker took up before.
    until: Option<Timestamp>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
    /// At most so many.
    #[serde(default = "hundred")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// Deliveries with their histories, those that were taken up last first, page by page.
#[utoipa::path(
    get, path = "/v1/events", tag = "look", params(Events), security(("token" = [])),
    responses((status = 200, body = Page), (status = "default", body = Problem))
)]
pub(super) async fn events(state: State, Query(asked): Query<Events>) -> Answer<Page> {
    let limit = within(asked.limit)?;
    let query = Asking {
        source: asked.source,
        destination: asked.destination,
        kind: asked.kind,
        state: asked.state,
        reason: asked.reason,
        since: asked.since,
        until: asked.until,
    };
    Ok(Json(state.events(&query, asked.cursor, limit).await?))
}

/// All that is known of an event: its deliveries with their histories, or where it waits, and refused
/// callbacks that say that they are of it.
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "The provider's id, an identity, or a delivery key")),
    responses((status = 200, body = Found), (status = "default", body = Problem))
)]
pub(super) async fn event(state: State, Path(id): Path<String>) -> Answer<Found> {
    Ok(Json(state.event(&id).await.map_err(Problem::or_unknown)?))
}

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
    #[serde(default = "hundred")]
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
    let filter = Filter::of(asked.destination, asked.source, reason, asked.kind);
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
    who.may_see_payloads()?;
    let said = Asked { because: String::new(), by: who.name() }.said();
    let bytes = state.body(&id, &said).await.map_err(Problem::or_unknown)?;
    Ok(attached(bytes))
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
    responses((status = 200, body = Tally), (status = "default", body = Problem))
)]
pub(super) async fn requeue(
    who: Who,
    state: State,
    Body(Letters { ids, because }): Body<Letters>,
) -> Answer<Tally> {
    who.may(Role::Operator)?;
    if !(1..=100).contains(&ids.len()) {
        return Err(bad("name 1 to 100 dead letters".into()));
    }
    Ok(Json(state.requeue(ids, asked(&who, Reason { because })?).await?))
}

/// The workers that run.
#[utoipa::path(
    get, path = "/v1/workers", tag = "look", security(("token" = [])),
    responses((status = 200, body = List<Beat>), (status = "default", body = Problem))
)]
pub(super) async fn workers(state: State) -> Answer<List<Beat>> {
    Ok(Json(state.workers().await?.into()))
}

/// Destinations: workers, running attempts, circuit, and whether they are paused.
#[utoipa::path(
    get, path = "/v1/destinations", tag = "look", security(("token" = [])),
    responses((status = 200, body = List<control::Standing>), (status = "default", body = Problem))
)]
pub(super) async fn destinations(state: State) -> Answer<List<control::Standing>> {
    Ok(Json(state.destinations().await?.into()))
}

/// Why something is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reason {
    /// For the audit; at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    pub(super) because: String,
}

/// Stops attempts at it, until it is resumed.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/pause", tag = "act", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = control::Standing), (status = "default", body = Problem))
)]
pub(super) async fn pause(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<control::Standing> {
    act(&who, &state, &destination, Deed::Pause, reason).await
}

/// Goes on with a paused one.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/resume", tag = "act", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = control::Standing), (status = "default", body = Problem))
)]
pub(super) async fn resume(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<control::Standing> {
    act(&who, &state, &destination, Deed::Resume, reason).await
}

/// Has its workers try again now, though their circuits are open.
#[utoipa::path(
    post, path = "/v1/destinations/{destination}/close-circuit", tag = "act",
    security(("token" = [])), params(("destination" = String, Path)), request_body = Reason,
    responses((status = 200, body = control::Standing), (status = "default", body = Problem))
)]
pub(super) async fn close_circuit(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<control::Standing> {
    act(&who, &state, &destination, Deed::CloseCircuit, reason).await
}

async fn act(
    who: &Who,
    state: &State,
    destination: &str,
    deed: Deed,
    reason: Reason,
) -> Answer<control::Standing> {
    who.may(Role::Operator)?;
    let asked = asked(who, reason)?;
    let done = state.act(destination, deed, &asked).await?;
    done.map(Json).ok_or_else(|| {
        Problem::unknown(format!("there is no destination {destination}: see /v1/destinations"))
    })
}

/// How much of the audit.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Audit {
    /// At most so many.
    #[serde(default = "hundred")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// What operators did, when and why: the newest first. For admins.
#[utoipa::path(
    get, path = "/v1/audit", tag = "look", params(Audit), security(("token" = [])),
    responses((status = 200, body = List<Act>), (status = "default", body = Problem))
)]
pub(super) async fn audit(who: Who, state: State, Query(asked): Query<Audit>) -> Answer<List<Act>> {
    who.may(Role::Admin)?;
    Ok(Json(state.audited(within(asked.limit)?).await?.into()))
}

/// Who asks, and why.
pub(super) fn asked(who: &Who, Reason { because }: Reason) -> Result<Asked, Problem> {
    let because = crate::cli::reason(&because).map_err(bad)?;
    Ok(Asked { because, by: who.name() })
}

pub(super) fn hundred() -> usize {
    100
}

pub(super) fn within(limit: usize) -> Result<usize, Problem> {
    match limit {
        1..=1000 => Ok(limit),
        _ => Err(bad("limit is from 1 to 1000".into())),
    }
}

pub(super) fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}
