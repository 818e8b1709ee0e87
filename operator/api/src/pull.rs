//! Pull: consumers fetch the events of a destination, and acknowledge them.

use std::time::Duration;

use axum::Json;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zentra_admin::AdminError;
use zentra_worker::pull::{LeasedEvent, MOST, Nack, Pulled};

use crate::State;
use crate::auth::Who;
use crate::consume::{ConsumedEvent, bounded, default_wait};
use crate::extract::{Answer, Body, Path};
use crate::problem::Problem;
use crate::time::Time;

/// Maximum length of an error message, in bytes.
const ERROR: usize = 1000;
/// Longest `retry_after_seconds`. The destination's `retry.max_retry_after` can be shorter.
const RETRY_AFTER: u32 = 86_400;

/// Lease events of a destination. Waits for the first one.
#[utoipa::path(
    post, path = "/v1/pull/{destination}", tag = "consume", security(("token" = [])),
    params(("destination" = String, Path)), request_body = PullRequest,
    responses((status = 200, body = PulledEvents), (status = "default", body = Problem))
)]
pub(super) async fn pull(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(request): Body<PullRequest>,
) -> Answer<PulledEvents> {
    who.may_consume(&destination)?;
    let PullRequest { max, wait_seconds } = request;
    let wait = bounded(max, wait_seconds)?;
    Ok(Json(state.pull(&destination, max, wait).await?.into()))
}

/// Acknowledge events: they are delivered.
#[utoipa::path(
    post, path = "/v1/pull/{destination}/ack", tag = "consume", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Receipts,
    responses((status = 200, body = Results), (status = "default", body = Problem))
)]
pub(super) async fn ack(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(Receipts { receipts }): Body<Receipts>,
) -> Answer<Results> {
    who.may_consume(&destination)?;
    within(&receipts)?;
    let acts = receipts.iter().map(|receipt| state.ack(&destination, receipt));
    results(&receipts, join_all(acts).await.into_iter().map(|done| done.map(|()| None)))
}

/// Report that events could not be processed: they are retried, or dead-lettered.
#[utoipa::path(
    post, path = "/v1/pull/{destination}/nack", tag = "consume", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Rejection,
    responses((status = 200, body = Results), (status = "default", body = Problem))
)]
pub(super) async fn nack(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(rejection): Body<Rejection>,
) -> Answer<Results> {
    who.may_consume(&destination)?;
    within(&rejection.receipts)?;
    let Rejection { receipts, retry_after_seconds, permanent, error } = rejection;
    if retry_after_seconds.is_some_and(|seconds| seconds > RETRY_AFTER) {
        return Err(Problem::invalid(format!(
            "retry_after_seconds must be from 0 to {RETRY_AFTER}"
        )));
    }
    if permanent && retry_after_seconds.is_some() {
        return Err(Problem::invalid("retry_after_seconds has no effect with permanent"));
    }
    if error.as_ref().is_some_and(|error| error.len() > ERROR) {
        return Err(Problem::invalid(format!("error must have at most {ERROR} bytes")));
    }
    let retry_after = retry_after_seconds.map(|seconds| Duration::from_secs(seconds.into()));
    let nack = Nack { retry_after, permanent, error };
    let acts = receipts.iter().map(|receipt| state.nack(&destination, receipt, nack.clone()));
    results(&receipts, join_all(acts).await.into_iter().map(|done| done.map(|()| None)))
}

/// Extend leases to the destination's `lease` from now.
#[utoipa::path(
    post, path = "/v1/pull/{destination}/extend", tag = "consume", security(("token" = [])),
    params(("destination" = String, Path)), request_body = Receipts,
    responses((status = 200, body = Results), (status = "default", body = Problem))
)]
pub(super) async fn extend(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Body(Receipts { receipts }): Body<Receipts>,
) -> Answer<Results> {
    who.may_consume(&destination)?;
    within(&receipts)?;
    let acts = receipts.iter().map(|receipt| state.extend(&destination, receipt));
    let ends = join_all(acts).await.into_iter().map(|done| done.map(|end| Some(end.into())));
    results(&receipts, ends)
}

fn within(receipts: &[String]) -> Result<(), Problem> {
    match (1..=MOST).contains(&receipts.len()) {
        true => Ok(()),
        false => Err(Problem::invalid(format!("receipts must be 1 to {MOST}"))),
    }
}

/// The result of each receipt. If none had an effect, the first error.
fn results(
    receipts: &[String],
    done: impl Iterator<Item = Result<Option<Time>, AdminError>>,
) -> Answer<Results> {
    let (mut items, mut errors) = (Vec::new(), Vec::new());
    for (receipt, done) in receipts.iter().zip(done) {
        let (lease_until, problem) = match done {
            Ok(until) => (until, None),
            Err(error) => {
                let code = error.code.as_str();
                errors.push(error);
                (None, Some(code))
            }
        };
        let (receipt, done) = (receipt.clone(), problem.is_none());
        items.push(ReceiptResult { receipt, done, problem, lease_until });
    }
    match errors.len() == receipts.len() {
        true => Err(errors.swap_remove(0).into()),
        false => Ok(Json(Results { items })),
    }
}

/// A request for events.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PullRequest {
    /// Maximum number of events: 1 to 100.
    #[serde(default = "most")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    max: usize,
    /// How long to wait for the first event: 0 to 20 s.
    #[serde(default = "default_wait")]
    #[schema(maximum = 20, default = 20)]
    wait_seconds: u32,
}

fn most() -> usize {
    10
}

/// Events, each leased to this consumer.
#[derive(Serialize, ToSchema)]
pub(crate) struct PulledEvents {
    items: Vec<PulledEvent>,
    /// Whether an operator has paused the destination: then there are no events.
    paused: bool,
}

impl From<Pulled> for PulledEvents {
    fn from(from: Pulled) -> Self {
        let items = from.events.into_iter().map(Into::into).collect();
        Self { items, paused: from.paused }
    }
}

/// A leased event.
#[derive(Serialize, ToSchema)]
pub(crate) struct PulledEvent {
    /// Names the lease when it is acknowledged, rejected or extended.
    receipt: String,
    /// Number of the attempt, from 1.
    attempt: u32,
    /// End of the lease. Compare it with this server's clock only.
    lease_until: Time,
    #[serde(flatten)]
    event: ConsumedEvent,
}

impl From<LeasedEvent> for PulledEvent {
    fn from(from: LeasedEvent) -> Self {
        let LeasedEvent { receipt, key, attempt, until, headers, event } = from;
        let event = ConsumedEvent::new(&key, event, headers);
        Self { receipt, attempt, lease_until: until.into(), event }
    }
}

/// Leases.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Receipts {
    /// Receipts of up to 100 events.
    #[schema(min_items = 1, max_items = 100)]
    receipts: Vec<String>,
}

/// Leases that end without success.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rejection {
    /// Receipts of up to 100 events.
    #[schema(min_items = 1, max_items = 100)]
    receipts: Vec<String>,
    /// Pause before the next attempt, up to the destination's `retry.max_retry_after`. If it is
    /// missing, the retry policy decides.
    #[schema(maximum = 86400)]
    retry_after_seconds: Option<u32>,
    /// Whether no retry can help: then the events become dead letters.
    #[serde(default)]
    permanent: bool,
    /// Error, for the history: at most 1000 bytes.
    #[schema(max_length = 1000)]
    error: Option<String>,
}

/// The result of each receipt. If none had an effect, the answer is a problem instead.
#[derive(Serialize, ToSchema)]
pub(crate) struct Results {
    items: Vec<ReceiptResult>,
}

/// The result of one receipt.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReceiptResult {
    receipt: String,
    done: bool,
    /// Error code, if it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
    /// End of an extended lease. Compare it with this server's clock only.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_until: Option<Time>,
}
