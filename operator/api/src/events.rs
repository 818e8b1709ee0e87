//! Events: lists, histories, search, live changes; release and end.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::sync::{Semaphore, mpsc};
use utoipa::IntoParams;
use zentra_admin::ErrorCode;
use zentra_admin::event::{EventDetails, Matches};
use zentra_admin::list::List;
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::{self, DeadReason};
use zentra_store::control::Role;
use zentra_store::journal::Delivery;
use zentra_store::journal::list::{Page, Query as Asking};

use crate::State;
use crate::auth::{PerToken, Who};
use crate::extract::{Answer, Body, Path, Query, Reason, actor, default_limit, looks, within};
use crate::lines::Lines;
use crate::problem::Problem;

/// Maximum number of listeners,
static LISTENERS: Semaphore = Semaphore::const_new(8);
/// Maximum number of them for one token.
const BY_TOKEN: usize = 3;
static BY_ONE: PerToken = PerToken::new();
/// each for this long, so that a revoked token can't listen without end,
const AN_HOUR: Duration = Duration::from_secs(3600);
/// and with this many unread batches at most.
const BEHIND: usize = 64;

/// Filters for deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Events {
    /// Only this source.
    source: Option<String>,
    /// Only this destination.
    destination: Option<String>,
    /// Only this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only this state.
    state: Option<lifecycle::State>,
    /// Only dead deliveries with this reason.
    reason: Option<DeadReason>,
    /// Only deliveries that a worker took up since this time: RFC 3339, or milliseconds since 1970.
    since: Option<Timestamp>,
    /// Only deliveries that a worker took up before this time.
    until: Option<Timestamp>,
    /// Cursor: `next` of the previous page.
    cursor: Option<String>,
    /// Maximum number of items to return (default 100).
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// List deliveries with their histories, newest first, page by page.
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

/// Show an event: its deliveries with their histories, where it waits, and refused callbacks that
/// claim its id.
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "The provider's id, an identity, or a delivery key")),
    responses((status = 200, body = EventDetails), (status = "default", body = Problem))
)]
pub(super) async fn event(state: State, Path(id): Path<String>) -> Answer<EventDetails> {
    Ok(Json(state.event(&id).await?))
}

/// The search.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Find {
    /// The text, as it appears in the body: 1 to 200 characters.
    #[param(min_length = 1, max_length = 200)]
    text: String,
}

/// Find events whose bodies contain a text, such as a transfer's number. Needs a token with
/// payloads, because searches reveal bodies. Each search is audited.
#[utoipa::path(
    get, path = "/v1/find", tag = "look", params(Find), security(("token" = [])),
    responses((status = 200, body = Matches), (status = "default", body = Problem))
)]
pub(super) async fn find(
    who: Who,
    state: State,
    Query(Find { text }): Query<Find>,
) -> Answer<Matches> {
    let attribution = looks(&who)?;
    if !(1..=200).contains(&text.chars().count()) {
        return Err(Problem::invalid("text has 1 to 200 characters"));
    }
    Ok(Json(state.find(&text, &attribution).await?))
}

/// Filters for deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Tail {
    /// Only this source.
    source: Option<String>,
    /// Only this destination.
    destination: Option<String>,
    /// Only this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only this state.
    state: Option<lifecycle::State>,
    /// Only dead deliveries with this reason.
    reason: Option<DeadReason>,
    /// Only this event: the provider's id, the identity, or a delivery key.
    id: Option<String>,
}

/// Stream changes of the newest 1,000 deliveries as lines of JSON, for an hour.
#[utoipa::path(
    get, path = "/v1/tail", tag = "look", params(Tail), security(("token" = [])),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn tail(
    who: Who,
    state: State,
    Query(asked): Query<Tail>,
) -> Result<impl IntoResponse, Problem> {
    let too_many = |detail: &str| Problem::new(ErrorCode::RateLimited, detail);
    let by_one = BY_ONE.take(who.token(), BY_TOKEN);
    let by_one = by_one.ok_or_else(|| too_many("three tails at a time by one token"))?;
    let listens = LISTENERS.try_acquire();
    let listens = listens.map_err(|_| too_many("too many are told already: try again"))?;
    let Tail { source, destination, kind, state: stands, reason, id } = asked;
    let query =
        Asking { source, destination, kind, state: stands, reason, since: None, until: None };
    let (sender, receiver) = mpsc::channel(BEHIND);
    let service = Arc::clone(&state.0);
    tokio::spawn(async move {
        let _listens = (listens, by_one);
        let mut lines = Lines::new(sender);
        let told = service.tail(&query, id.as_deref(), &mut lines);
        // It ends when the reader does.
        let _ = tokio::time::timeout(AN_HOUR, told).await;
    });
    let lines = stream::unfold(receiver, |mut receiver| async {
        let next: Bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(next), receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], HttpBody::from_stream(lines)))
}

/// Release a suspected replay or a conflict as an event of its own. A waiting delivery is attempted
/// now.
#[utoipa::path(
    post, path = "/v1/events/{id}/release", tag = "act", security(("token" = [])),
    params(("id" = String, Path, description = "The provider's id, or a delivery key")),
    request_body = Reason,
    responses((status = 200, body = List<Delivery>), (status = "default", body = Problem))
)]
pub(super) async fn release(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<List<Delivery>> {
    who.may(Role::Operator)?;
    let actor = actor(&who, &reason.because)?;
    Ok(Json(state.release(&id, &actor).await?.into()))
}

/// End the retries of a waiting delivery. It becomes a dead letter.
#[utoipa::path(
    post, path = "/v1/events/{id}/end", tag = "act", security(("token" = [])),
    params(("id" = String, Path, description = "The provider's id, or a delivery key")),
    request_body = Reason,
    responses((status = 200, body = List<Delivery>), (status = "default", body = Problem))
)]
pub(super) async fn end(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Body(reason): Body<Reason>,
) -> Answer<List<Delivery>> {
    who.may(Role::Operator)?;
    let actor = actor(&who, &reason.because)?;
    Ok(Json(state.end(&id, &actor).await?.into()))
}
