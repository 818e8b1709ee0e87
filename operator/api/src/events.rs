//! Events: lists, histories, search, live changes; release and end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};
use zentra_admin::ErrorCode;
use zentra_store::control::Role;
use zentra_store::journal::list::Query as Asking;

use crate::State;
use crate::auth::{PerToken, Who};
use crate::delivery::{self, DeadReason, Delivery, Listed, Summary};
use crate::extract::{Answer, Body, Path, Query, Reason, actor, default_limit, looks, within};
use crate::feed::News;
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

/// Maximum number of listeners.
static LISTENERS: Semaphore = Semaphore::const_new(256);
/// Maximum number of them for one token.
const BY_TOKEN: usize = 16;
static BY_ONE: PerToken = PerToken::new();
/// How long one can listen, so that a revoked token can't listen without end.
const AN_HOUR: Duration = Duration::from_secs(3600);
/// After this time without a change, a line says that the connection stands.
const QUIET: Duration = Duration::from_secs(10);

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
    state: Option<delivery::State>,
    /// Only dead deliveries with this reason.
    reason: Option<DeadReason>,
    /// Only deliveries that this job has requeued or replayed.
    job: Option<String>,
    /// Only deliveries that a worker took up since this time: RFC 3339, or milliseconds since 1970.
    since: Option<Time>,
    /// Only deliveries that a worker took up before this time.
    until: Option<Time>,
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
    responses((status = 200, body = List<Listed>), (status = "default", body = Problem))
)]
pub(super) async fn events(state: State, Query(asked): Query<Events>) -> Answer<List<Listed>> {
    let limit = within(asked.limit)?;
    let query = Asking {
        source: asked.source,
        destination: asked.destination,
        kind: asked.kind,
        state: asked.state.map(Into::into),
        reason: asked.reason.map(Into::into),
        job: asked.job,
        since: asked.since.map(Into::into),
        until: asked.until.map(Into::into),
    };
    Ok(Json(state.events(&query, asked.cursor, limit).await?.into()))
}

/// Show an event: its deliveries with their histories, where it waits, and refused callbacks that
/// claim its id.
#[utoipa::path(
    get, path = "/v1/events/{id}", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "The provider's id, an identity, or a delivery key")),
    responses((status = 200, body = EventDetails), (status = "default", body = Problem))
)]
pub(super) async fn event(state: State, Path(id): Path<String>) -> Answer<EventDetails> {
    Ok(Json(state.event(&id).await?.into()))
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
        return Err(Problem::invalid("text must have 1 to 200 characters"));
    }
    Ok(Json(state.find(&text, &attribution).await?.into()))
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
    state: Option<delivery::State>,
    /// Only dead deliveries with this reason.
    reason: Option<DeadReason>,
    /// Only deliveries that this job has requeued or replayed.
    job: Option<String>,
    /// Only this event: the provider's id, the identity, or a delivery key.
    id: Option<String>,
    /// Go on after this position, from an earlier line.
    after: Option<String>,
}

/// Stream changes of the newest 1,000 deliveries (of all sources and destinations) as lines of JSON, for
/// an hour.
///
/// Each line has a `position`: with `after`, another request goes on behind it. From the
/// first line on, no change is missed. Lines without a `delivery` come first, after ten quiet seconds, with
/// `missed: true` if changes before them are missing, and with an `error` while the store cannot be read.
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
    let too_many = |detail: String| Problem::new(ErrorCode::RateLimited, detail);
    let by_one = BY_ONE.take(who.token(), BY_TOKEN);
    let by_one =
        by_one.ok_or_else(|| too_many(format!("at most {BY_TOKEN} concurrent tails per token")))?;
    let listens = LISTENERS.try_acquire();
    let listens = listens.map_err(|_| too_many("too many concurrent tails: retry later".into()))?;
    let Tail { source, destination, kind, state: stands, reason, job, id, after } = asked;
    let query = Asking {
        source,
        destination,
        kind,
        state: stands.map(Into::into),
        reason: reason.map(Into::into),
        job,
        since: None,
        until: None,
    };
    let listener = state.listen(query, id, after.as_deref());
    let until = Instant::now() + AN_HOUR;
    let lines_of = stream::unfold((listener, by_one, listens), move |mut held| async move {
        let quiet = until.min(Instant::now() + QUIET);
        if Instant::now() >= until {
            return None;
        }
        let news = match timeout_at(quiet, held.0.next()).await {
            Ok(next) => next?,
            Err(_) => held.0.quiet(),
        };
        Some((Ok::<_, std::io::Error>(Bytes::from(lines(&news))), held))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], HttpBody::from_stream(lines_of)))
}

/// A line of `/v1/tail` without a change.
#[derive(Serialize)]
struct Quiet<'a> {
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    missed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    position: &'a str,
}

/// One line for each change, or one without a change.
fn lines(news: &News) -> Vec<u8> {
    let News { changes, missed, error, position } = news;
    let mut text = Vec::new();
    if *missed || error.is_some() || changes.is_empty() {
        let error = error.map(|code| code.as_str());
        text.extend(line(&Quiet { missed: *missed, error, position }));
    }
    for change in changes {
        text.extend(line(&delivery::Change::new(change, position)));
    }
    text
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
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

/// An accepted event that no worker has claimed.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// Always the same text, like the state of a delivery's record.
    pub(crate) state: &'static str,
    /// Path of the file.
    pub(crate) place: Waiting,
    pub(crate) event: Summary,
}

impl From<zentra_admin::event::Accepted> for Accepted {
    fn from(from: zentra_admin::event::Accepted) -> Self {
        Self { state: from.state, place: from.place.into(), event: from.event.into() }
    }
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Waiting {
    /// No destination subscribes to it.
    Unrouted,
    /// No worker has taken it up yet, or it was forgotten.
    Archive,
}

impl From<zentra_admin::event::Waiting> for Waiting {
    fn from(from: zentra_admin::event::Waiting) -> Self {
        match from {
            zentra_admin::event::Waiting::Unrouted => Self::Unrouted,
            zentra_admin::event::Waiting::Archive => Self::Archive,
        }
    }
}

/// One of them.
#[derive(Serialize, ToSchema)]
pub(crate) struct RefusedCopy {
    /// Always the same text, like the state of a delivery's record.
    pub(crate) state: &'static str,
    /// Id of the refused callback.
    pub(crate) refused_id: String,
    pub(crate) source: String,
    pub(crate) reason: String,
    pub(crate) received_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
    pub(crate) body_sha256: String,
}

impl From<zentra_admin::event::RefusedCopy> for RefusedCopy {
    fn from(from: zentra_admin::event::RefusedCopy) -> Self {
        Self {
            state: from.state,
            refused_id: from.refused_id,
            source: from.source,
            reason: from.reason,
            received_at: from.received_at.into(),
            peer: from.peer.map(|peer| peer.to_string()),
            body_sha256: from.body_sha256,
        }
    }
}

/// All information about an event.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventDetails {
    /// Deliveries, oldest key first.
    pub(crate) deliveries: Vec<Delivery>,
    /// Where it waits, if no worker has claimed it.
    pub(crate) accepted: Vec<Accepted>,
    /// Refused callbacks that claim its id or have its body.
    pub(crate) refused: Vec<RefusedCopy>,
}

impl From<zentra_admin::event::EventDetails> for EventDetails {
    fn from(from: zentra_admin::event::EventDetails) -> Self {
        Self {
            deliveries: from.deliveries.into_iter().map(Into::into).collect(),
            accepted: from.accepted.into_iter().map(Into::into).collect(),
            refused: from.refused.into_iter().map(Into::into).collect(),
        }
    }
}

/// Matches of a search.
#[derive(Serialize, ToSchema)]
pub(crate) struct Matches {
    /// Accepted events, by time of receipt.
    pub(crate) events: Vec<Match>,
    /// Ids of refused callbacks. Nothing has verified them.
    pub(crate) refused: Vec<String>,
    /// Whether there can be more.
    pub(crate) more: bool,
    /// Whether bodies of delivered events are archived.
    pub(crate) archived: bool,
}

impl From<zentra_admin::event::Matches> for Matches {
    fn from(from: zentra_admin::event::Matches) -> Self {
        Self {
            events: from.events.into_iter().map(Into::into).collect(),
            refused: from.refused,
            more: from.more,
            archived: from.archived,
        }
    }
}

/// An event whose body contains the text.
#[derive(Serialize, ToSchema)]
pub(crate) struct Match {
    pub(crate) source: String,
    pub(crate) event_id: Option<String>,
    /// Identity, as in its delivery keys.
    pub(crate) identity: String,
    pub(crate) event_type: Option<String>,
    pub(crate) received_at: Time,
    /// Places where its body was found.
    pub(crate) places: BTreeSet<String>,
    /// Its remembered deliveries and their states.
    pub(crate) deliveries: BTreeMap<String, String>,
}

impl From<zentra_admin::event::Match> for Match {
    fn from(from: zentra_admin::event::Match) -> Self {
        Self {
            source: from.source,
            event_id: from.event_id,
            identity: from.identity,
            event_type: from.event_type,
            received_at: from.received_at.into(),
            places: from.places,
            deliveries: from.deliveries,
        }
    }
}
