//! Status and metrics.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use zentra_admin::ErrorCode;
use zentra_admin::status::metrics as exposition;

use crate::State;
use crate::audit::Attribution;
use crate::destinations::Circuit;
use crate::extract::Answer;
use crate::problem::Problem;
use crate::time::Time;

/// Show the health of parts, sources and destinations.
#[utoipa::path(
    get, path = "/v1/status", tag = "look", security(("token" = [])),
    responses((status = 200, body = Status), (status = "default", body = Problem))
)]
pub(super) async fn status(state: State) -> Answer<Status> {
    Ok(Json(state.status().await?.into()))
}

/// The status as Prometheus metrics. Parts, queues and workers are current; figures of the newest
/// deliveries are at most a minute old. It holds no message. Once consumers pull from this server,
/// it has the metrics of a worker too.
#[utoipa::path(
    get, path = "/v1/metrics", tag = "look", security(("token" = [])),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn metrics(state: State) -> Result<String, Problem> {
    let text = exposition(&state.metrics().await?);
    let text = text.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    Ok(text + &state.pull_metrics()?)
}

/// The status.
#[derive(Serialize, ToSchema)]
pub(crate) struct Status {
    pub(crate) at: Time,
    pub(crate) parts: Vec<Part>,
    /// The deliveries that the status is based on.
    pub(crate) seen: Coverage,
    pub(crate) sources: Vec<SourceStatus>,
    pub(crate) destinations: Vec<DestinationStatus>,
    /// Accepted events that no destination subscribes to.
    pub(crate) unrouted: Option<u64>,
    /// Refused callbacks that are stored.
    pub(crate) refused: Option<u64>,
}

impl From<zentra_admin::status::Status> for Status {
    fn from(from: zentra_admin::status::Status) -> Self {
        Self {
            at: from.at.into(),
            parts: from.parts.into_iter().map(Into::into).collect(),
            seen: from.seen.into(),
            sources: from.sources.into_iter().map(Into::into).collect(),
            destinations: from.destinations.into_iter().map(Into::into).collect(),
            unrouted: from.unrouted,
            refused: from.refused,
        }
    }
}

/// A part that everything depends on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) up: bool,
    /// The problem, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
}

impl From<zentra_admin::status::Part> for Part {
    fn from(from: zentra_admin::status::Part) -> Self {
        Self { name: from.name, up: from.up, problem: from.problem }
    }
}

/// The deliveries that the status is based on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Coverage {
    pub(crate) deliveries: usize,
    /// Time of the oldest one.
    pub(crate) since: Option<Time>,
    /// Whether these are all remembered deliveries.
    pub(crate) all: bool,
}

impl From<zentra_admin::status::Coverage> for Coverage {
    fn from(from: zentra_admin::status::Coverage) -> Self {
        Self { deliveries: from.deliveries, since: from.since.map(Into::into), all: from.all }
    }
}

/// Status of a source.
#[derive(Serialize, ToSchema)]
pub(crate) struct SourceStatus {
    pub(crate) source: String,
    pub(crate) provider: String,
    /// What is wrong: `delayed`, `duplicating`, `refusing`, `silent`, `nothing_seen`, and
    /// `copies_jumped`, `conflicts_jumped`, `suspected_replays_jumped`; nothing if it is on time.
    pub(crate) findings: Vec<&'static str>,
    pub(crate) last_accepted: Option<Time>,
    /// Events among the deliveries that were read.
    pub(crate) events: usize,
    /// Time from the provider's signed time to the receipt, in milliseconds: median and maximum.
    pub(crate) delay_ms: Option<(u64, u64)>,
    /// Copies of delivered or dead events.
    pub(crate) copies: Rate,
    /// Conflicts: other bodies under known ids that aren't shown to name one event.
    pub(crate) conflicts: Rate,
    /// Rendered retries: other bodies under ids that are shown to name one event.
    pub(crate) rendered_retries: Rate,
    /// Suspected replays: the same signed bytes under another unsigned id or type.
    pub(crate) suspected_replays: Rate,
    /// Refused callbacks of the last hour, by reason.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Time since the last event, and the 95th percentile of gaps, in seconds.
    pub(crate) quiet_s: Option<(u64, u64)>,
    /// Names of the secrets that verified events.
    pub(crate) keys_in_use: BTreeSet<String>,
}

impl From<zentra_admin::status::Source> for SourceStatus {
    fn from(from: zentra_admin::status::Source) -> Self {
        Self {
            source: from.source,
            provider: from.provider,
            findings: from.findings,
            last_accepted: from.last_accepted.map(Into::into),
            events: from.events,
            delay_ms: from.delay_ms,
            copies: from.copies.into(),
            conflicts: from.conflicts.into(),
            rendered_retries: from.rendered_retries.into(),
            suspected_replays: from.suspected_replays.into(),
            refused: from.refused,
            quiet_s: from.quiet_s,
            keys_in_use: from.keys_in_use,
        }
    }
}

/// A rate among the events that were read.
#[derive(Serialize, ToSchema)]
pub(crate) struct Rate {
    /// Total.
    pub(crate) count: usize,
    /// Number in the last hour.
    pub(crate) last_hour: usize,
    /// Number per 100 events of the last hour.
    pub(crate) last_hour_percent: f64,
    /// Number per 100 events before that.
    pub(crate) before_percent: f64,
}

impl From<zentra_admin::status::Rate> for Rate {
    fn from(from: zentra_admin::status::Rate) -> Self {
        Self {
            count: from.count,
            last_hour: from.last_hour,
            last_hour_percent: from.last_hour_percent,
            before_percent: from.before_percent,
        }
    }
}

/// Status of a destination.
#[derive(Serialize, ToSchema)]
pub(crate) struct DestinationStatus {
    pub(crate) destination: String,
    /// What is wrong: `no_worker`, `no_consumer` (nobody pulls), `paused`, `circuit_open`, `failing`, `queue_missing`, `stuck`, `dead_letters`,
    /// `unlisted_letters`; nothing if all is well.
    pub(crate) findings: Vec<&'static str>,
    /// Number of workers. `None` if it is unknown.
    pub(crate) workers: Option<usize>,
    /// The worst circuit state of all workers.
    pub(crate) circuit: Option<Circuit>,
    /// Who paused it, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<Attribution>,
    /// Messages that wait for a worker. `None` if no worker has declared the queue yet, or the
    /// queue can't be read.
    pub(crate) backlog: Option<u64>,
    /// Whether its work queue doesn't exist.
    pub(crate) queue_missing: bool,
    /// Attempts of the last hour among the deliveries that were read.
    pub(crate) attempts: u64,
    pub(crate) succeeded: u64,
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
    /// Receipt of the oldest unfinished delivery.
    pub(crate) oldest: Option<Time>,
    pub(crate) last_delivered: Option<Time>,
    /// Dead deliveries by reason, up to 1,000.
    pub(crate) dead: BTreeMap<&'static str, usize>,
    /// Letters in its dead-letter queue beyond the known dead deliveries: RabbitMQ dead-lettered
    /// them after 100 unacknowledged deliveries, or a killed pass left them. `None` if it is
    /// unknown.
    pub(crate) unlisted_letters: Option<u64>,
}

impl From<zentra_admin::status::Destination> for DestinationStatus {
    fn from(from: zentra_admin::status::Destination) -> Self {
        Self {
            destination: from.destination,
            findings: from.findings,
            workers: from.workers,
            circuit: from.circuit.map(Into::into),
            paused: from.paused.map(Into::into),
            backlog: from.backlog,
            queue_missing: from.queue_missing,
            attempts: from.attempts,
            succeeded: from.succeeded,
            in_flight: from.in_flight,
            waiting: from.waiting,
            oldest: from.oldest.map(Into::into),
            last_delivered: from.last_delivered.map(Into::into),
            dead: from.dead,
            unlisted_letters: from.unlisted_letters,
        }
    }
}
