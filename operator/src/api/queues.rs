//! The routes of queues and the archive.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use zentra_shared::control::{Role, Said};
use zentra_shared::journal::Delivery;

use super::State;
use super::auth::Who;
use super::problem::Problem;
use super::routes::{Answer, Body, Letters, Path, Query, Reason, asked, bad, hundred, within};
use crate::control::Asked;
use crate::dead::Tally;
use crate::list::List;
use crate::reconcile::Report;
use crate::{archive, refused, unrouted};

/// Takes dead letters out of their queues for good, by name. What is drained can't be re-queued any
/// more; what is archived can be replayed by a job.
#[utoipa::path(
    post, path = "/v1/dead/drain", tag = "act", security(("token" = [])), request_body = Letters,
    responses((status = 200, body = Tally), (status = "default", body = Problem))
)]
pub(super) async fn drain(
    who: Who,
    state: State,
    Body(Letters { ids, because }): Body<Letters>,
) -> Answer<Tally> {
    who.may(Role::Operator)?;
    if !(1..=100).contains(&ids.len()) || because.is_empty() {
        return Err(bad("name 1 to 100 dead letters, and say why (because)".into()));
    }
    Ok(Json(state.drain(ids, asked(&who, Reason { because })?).await?))
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
    let asked = asked(&who, reason)?;
    Ok(Json(state.let_go(&id, &asked).await?.into()))
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
    let asked = asked(&who, reason)?;
    Ok(Json(state.end(&id, &asked).await?.into()))
}

/// Which events of a queue.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Unrouted {
    /// Only this source's.
    source: Option<String>,
    /// At most so many.
    #[serde(default = "hundred")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// Accepted events that no destination subscribes to, oldest first.
#[utoipa::path(
    get, path = "/v1/unrouted", tag = "look", params(Unrouted), security(("token" = [])),
    responses((status = 200, body = List<unrouted::Found>), (status = "default", body = Problem))
)]
pub(super) async fn unrouted(
    state: State,
    Query(Unrouted { source, limit }): Query<Unrouted>,
) -> Answer<List<unrouted::Found>> {
    Ok(Json(state.unrouted(source, within(limit)?).await?.into()))
}

/// Of which source, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Route {
    /// Only this source's.
    source: Option<String>,
    /// At most so many.
    #[serde(default = "hundred")]
    #[schema(minimum = 1, maximum = 1000)]
    limit: usize,
    /// For the audit; at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Routes those that a destination of the config subscribes to by now; the others stay.
#[utoipa::path(
    post, path = "/v1/unrouted/requeue", tag = "act", security(("token" = [])),
    request_body = Route,
    responses((status = 200, body = List<unrouted::Found>), (status = "default", body = Problem))
)]
pub(super) async fn route(
    who: Who,
    state: State,
    Body(Route { source, limit, because }): Body<Route>,
) -> Answer<List<unrouted::Found>> {
    who.may(Role::Operator)?;
    let asked = asked(&who, Reason { because })?;
    Ok(Json(state.route(source, within(limit)?, asked).await?.into()))
}

/// Which archived events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Archived {
    /// Only this source's.
    source: Option<String>,
    /// Only those of this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Only those that were accepted so many seconds ago or less.
    newer_than: Option<u32>,
    /// At most so many.
    #[serde(default = "hundred")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// What was accepted, whatever became of it, oldest first.
#[utoipa::path(
    get, path = "/v1/archive", tag = "look", params(Archived), security(("token" = [])),
    responses((status = 200, body = List<archive::Found>), (status = "default", body = Problem))
)]
pub(super) async fn archived(
    state: State,
    Query(Archived { source, kind, newer_than, limit }): Query<Archived>,
) -> Answer<List<archive::Found>> {
    let newer_than = newer_than.map(|seconds| std::time::Duration::from_secs(seconds.into()));
    let wanted = archive::Wanted { source, kind, newer_than, limit: within(limit)? };
    Ok(Json(state.archived(&wanted).await?.into()))
}

/// The original bytes of an archived event. For tokens with payloads; each look is in the audit.
#[utoipa::path(
    get, path = "/v1/archive/{id}/body", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "The provider's id, or the identity")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn archived_body(
    who: Who,
    state: State,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let said = looks(&who)?;
    Ok(attached(state.archived_body(&id, &said).await.map_err(Problem::or_unknown)?))
}

/// Which refused callbacks.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Refused {
    /// Only this source's.
    source: Option<String>,
    /// Only those refused for this reason.
    reason: Option<String>,
    /// At most so many.
    #[serde(default = "hundred")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// Refused callbacks that were kept, oldest first; without their signatures.
#[utoipa::path(
    get, path = "/v1/refused", tag = "look", params(Refused), security(("token" = [])),
    responses((status = 200, body = List<refused::Found>), (status = "default", body = Problem))
)]
pub(super) async fn refused(
    state: State,
    Query(Refused { source, reason, limit }): Query<Refused>,
) -> Answer<List<refused::Found>> {
    let wanted = refused::Wanted { ids: Vec::new(), source, reason };
    Ok(Json(state.refused(&wanted, within(limit)?).await?.into()))
}

/// The bytes of a refused callback. For tokens with payloads; each look is in the audit.
#[utoipa::path(
    get, path = "/v1/refused/{id}/body", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "As listed")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn refused_body(
    who: Who,
    state: State,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let said = looks(&who)?;
    Ok(attached(state.refused_body(&id, &said).await.map_err(Problem::or_unknown)?))
}

/// Which refused callbacks are to be let in, and why.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Admit {
    /// As listed; none: those of the source.
    #[serde(default)]
    #[schema(max_items = 100)]
    ids: Vec<String>,
    /// Those of this source.
    source: Option<String>,
    /// Those refused for this reason.
    reason: Option<String>,
    /// For the audit; at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Lets in those, 100 at most, that verify now that the source's secrets are right. What doesn't
/// verify stays refused. Only where the API is served with --admit.
#[utoipa::path(
    post, path = "/v1/refused/admit", tag = "act", security(("token" = [])), request_body = Admit,
    responses((status = 200, body = List<refused::Outcome>), (status = "default", body = Problem))
)]
pub(super) async fn admit(
    who: Who,
    state: State,
    Body(Admit { ids, source, reason, because }): Body<Admit>,
) -> Answer<List<refused::Outcome>> {
    who.may(Role::Operator)?;
    if ids.len() > 100 || (ids.is_empty() && source.is_none()) {
        return Err(bad("name 1 to 100 refused callbacks, or a source".into()));
    }
    let asked = asked(&who, Reason { because })?;
    let wanted = refused::Wanted { ids, source, reason };
    let outcomes = state.admit(&wanted, hundred(), &asked).await?;
    outcomes.map(|all| Json(all.into())).ok_or_else(without_secrets)
}

/// A provider's own list of events.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reconcile {
    /// Whose events.
    source: String,
    /// Each as the provider sends it, or with its id and type alone: 10,000 at most.
    #[schema(max_items = 10_000, value_type = Vec<Object>)]
    events: Vec<Box<RawValue>>,
    /// Brings in what is missing. Only where the API is served with --admit.
    #[serde(default)]
    ingest: bool,
    /// For the audit; at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Compares a provider's own list of events with what came: missing, dead, differing; and brings in what
/// is missing, if that is asked for.
#[utoipa::path(
    post, path = "/v1/reconcile", tag = "act", security(("token" = [])), request_body = Reconcile,
    responses((status = 200, body = Report), (status = "default", body = Problem))
)]
pub(super) async fn reconcile(
    who: Who,
    state: State,
    Body(Reconcile { source, events, ingest, because }): Body<Reconcile>,
) -> Answer<Report> {
    // What it brings in is as good as signed by the provider.
    who.may(if ingest { Role::Admin } else { Role::Operator })?;
    if events.len() > 10_000 {
        return Err(bad("10,000 events at most".into()));
    }
    let asked = asked(&who, Reason { because })?;
    let report = state.reconcile(&source, &events, ingest.then_some(&asked)).await?;
    report.map(Json).ok_or_else(without_secrets)
}

fn without_secrets() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "this server hasn't the sources' secrets: start it by zentra serve --admit",
    )
}

/// Who looks at bytes, if he may.
fn looks(who: &Who) -> Result<Said, Problem> {
    who.may_see_payloads()?;
    Ok(Asked { because: String::new(), by: who.name() }.said())
}

/// Whatever the provider sent, no browser runs it.
pub(super) fn attached(bytes: Bytes) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
    ];
    (headers, bytes)
}
