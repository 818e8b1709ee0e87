//! Incidents: findings that stand, and what was done about them.

use std::collections::BTreeMap;

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zentra_store::control::Role;
use zentra_store::incident;

use crate::State;
use crate::audit::Attribution;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, Query, Reason, actor};
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

/// Filters for incidents.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Incidents {
    /// Only those that stand.
    #[serde(default)]
    open: bool,
}

/// List incidents, newest first: all that stand, and the newest 1,000 closed ones. A server with
/// receivers in its configuration keeps them.
#[utoipa::path(
    get, path = "/v1/incidents", tag = "look", params(Incidents), security(("token" = [])),
    responses((status = 200, body = List<Incident>), (status = "default", body = Problem))
)]
pub(super) async fn incidents(
    state: State,
    Query(Incidents { open }): Query<Incidents>,
) -> Answer<List<Incident>> {
    Ok(Json(state.incidents(open).await?.into()))
}

/// Acknowledge an incident: nobody is reminded of it.
#[utoipa::path(
    post, path = "/v1/incidents/{id}/acknowledge", tag = "act", security(("token" = [])),
    params(("id" = String, Path)), request_body = Reason,
    responses((status = 200, body = Incident), (status = "default", body = Problem))
)]
pub(super) async fn acknowledge(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Body(Reason { because }): Body<Reason>,
) -> Answer<Incident> {
    who.may(Role::Operator)?;
    let actor = actor(&who, &because)?;
    Ok(Json(state.acknowledge_incident(&id, &actor).await?.into()))
}

/// Resolve an incident: it closes, and receivers are notified. Its finding opens a new one only after it
/// has gone for five minutes.
#[utoipa::path(
    post, path = "/v1/incidents/{id}/resolve", tag = "act", security(("token" = [])),
    params(("id" = String, Path)), request_body = Reason,
    responses((status = 200, body = Incident), (status = "default", body = Problem))
)]
pub(super) async fn resolve(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Body(Reason { because }): Body<Reason>,
) -> Answer<Incident> {
    who.may(Role::Operator)?;
    let actor = actor(&who, &because)?;
    Ok(Json(state.resolve_incident(&id, &actor).await?.into()))
}

/// How urgent a finding is.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Severity {
    /// Worth knowing.
    Info,
    /// Somebody should look at it today.
    Warning,
    /// Callbacks are refused, or nothing is delivered.
    Critical,
}

/// What a finding is about.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Subject {
    /// A part that everything depends on, such as `rabbitmq`.
    Part,
    /// A source.
    Source,
    /// A destination.
    Destination,
}

/// A message about an incident.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Notice {
    /// The finding stands.
    Opened,
    /// It still stands, and nobody has acknowledged it.
    Reminder,
    /// It has gone, or an operator has resolved it.
    Closed,
}

/// The last message to a receiver.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sent {
    /// The message.
    pub(crate) notice: Notice,
    /// When it was accepted.
    pub(crate) at: Time,
}

/// An incident.
#[derive(Serialize, ToSchema)]
pub(crate) struct Incident {
    /// Id.
    pub(crate) id: String,
    /// Number of changes.
    pub(crate) version: u64,
    /// What it is about.
    pub(crate) subject: Subject,
    /// Name of the part, source or destination.
    pub(crate) name: String,
    /// The finding, such as `circuit_open`.
    pub(crate) finding: String,
    /// Severity.
    pub(crate) severity: Severity,
    /// When it was found.
    pub(crate) opened_at: Time,
    /// When it was found last.
    pub(crate) seen_at: Time,
    /// When it had gone, or an operator resolved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) closed_at: Option<Time>,
    /// Who acknowledged it, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acknowledged: Option<Attribution>,
    /// Who resolved it, when and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resolved: Option<Attribution>,
    /// The last message to each receiver.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) sent: BTreeMap<String, Sent>,
}

impl From<incident::Incident> for Incident {
    fn from(from: incident::Incident) -> Self {
        let sent = |sent: incident::Sent| Sent {
            notice: match sent.notice {
                incident::Notice::Opened => Notice::Opened,
                incident::Notice::Reminder => Notice::Reminder,
                incident::Notice::Closed => Notice::Closed,
            },
            at: sent.at.into(),
        };
        Self {
            id: from.id,
            version: from.version,
            subject: match from.subject {
                incident::Subject::Part => Subject::Part,
                incident::Subject::Source => Subject::Source,
                incident::Subject::Destination => Subject::Destination,
            },
            name: from.name,
            finding: from.finding,
            severity: match from.severity {
                incident::Severity::Info => Severity::Info,
                incident::Severity::Warning => Severity::Warning,
                incident::Severity::Critical => Severity::Critical,
            },
            opened_at: from.opened_at.into(),
            seen_at: from.seen_at.into(),
            closed_at: from.closed_at.map(Into::into),
            acknowledged: from.acknowledged.map(Into::into),
            resolved: from.resolved.map(Into::into),
            sent: from.sent.into_iter().map(|(name, one)| (name, sent(one))).collect(),
        }
    }
}
