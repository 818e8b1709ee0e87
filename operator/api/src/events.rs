//! Events: lists, histories, search, what happens as it happens; release and end.

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

/// So many may be told at a time what happens,
static LISTENERS: Semaphore = Semaphore::const_new(8);
/// So many of them by one token.
const BY_TOKEN: usize = 3;
static BY_ONE: PerToken = PerToken::new();
/// each for so long, lest a token that was revoked is told for ever,
const AN_HOUR: Duration = Duration::from_secs(3600);
/// and each may be so many looks behind.
const BEHIND: usize = 64;

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
    state: Option<lifecycle::State>,
    /// Only those that are dead for this reason.
    reason: Option<DeadReason>,
    /// Only those that a worker took up then or later: RFC 3339, or milliseconds since 1970.
    since: Option<Timestamp>,
    /// Only those that a worker took up before.
    until: Option<Timestamp>,
    /// Where to go on: `next` of the page before.
    cursor: Option<String>,
    /// At most so many.
    #[serde(default = "default_limit")]
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
    responses((status = 200, body = EventDetails), (status = "default", body = Problem))
)]
pub(super) async fn event(state: State, Path(id): Path<String>) -> Answer<EventDetails> {
    Ok(Json(state.event(&id).await?))
}

/// What is looked for.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Find {
    /// The text, as it stands in the body: 1 to 200 characters.
    #[param(min_length = 1, max_length = 200)]
    text: String,
}

/// Events whose bodies have a text in them, like a transfer's number. For tokens with payloads, since
/// who asks often enough learns what is in a body; each look is in the audit.
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

/// Of which deliveries.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Tail {
    /// Only this source's.
    source: Option<String>,
    /// Only those to this destination.
    destination: Option<String>,
    /// Only those of this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only those that stand so.
    state: Option<lifecycle::State>,
    /// Only those that are dead for this reason.
    reason: Option<DeadReason>,
    /// Only those of this event: the provider's id, an identity, or a delivery key.
    id: Option<String>,
}

/// What happens, as it happens, of the newest thousand deliveries: a line of JSON each, for an hour.
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
        // It ends when its reader does.
        let _ = tokio::time::timeout(AN_HOUR, told).await;
    });
    let lines = stream::unfold(receiver, |mut receiver| async {
        let next: Bytes = receiver.recv().await?;
        Some((Ok::<_, std::io::Error>(next), receiver))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], HttpBody::from_stream(lines)))
}

/// Lets a suspected replay go on as an event of its own, or has one that waits for its next attempt
/// attempted now.
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

/// Ends the retries of one that waits for its next attempt: it is a dead letter then.
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
