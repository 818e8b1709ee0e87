//! Comparison with a provider's list of events.

use std::collections::BTreeMap;

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use zentra_store::control::Role;

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, actor};
use crate::problem::Problem;
use crate::time::Time;

/// A provider's list of events.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reconcile {
    /// The source.
    source: String,
    /// Events as the provider sends them, or with id and type only: at most 10,000.
    #[schema(max_items = 10_000, value_type = Vec<Object>)]
    events: Vec<Box<RawValue>>,
    /// Accept missing events. Only if the server has the sources' secrets.
    #[serde(default)]
    ingest: bool,
    /// Reason, for the audit log: at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Compare a provider's list of events with what came: missing, dead, differing. With `ingest`,
/// accept what is missing.
#[utoipa::path(
    post, path = "/v1/reconcile", tag = "act", security(("token" = [])), request_body = Reconcile,
    responses((status = 200, body = Report), (status = "default", body = Problem))
)]
pub(super) async fn reconcile(
    who: Who,
    state: State,
    Body(Reconcile { source, events, ingest, because }): Body<Reconcile>,
) -> Answer<Report> {
    // An ingested event counts as signed by the provider.
    who.may(if ingest { Role::Admin } else { Role::Operator })?;
    if events.len() > 10_000 {
        return Err(Problem::invalid("at most 10,000 events"));
    }
    let actor = actor(&who, &because)?;
    Ok(Json(state.reconcile(&source, &events, ingest.then_some(&actor)).await?.into()))
}

/// An event of the provider's list.
#[derive(Serialize, ToSchema)]
pub(crate) struct ListedEvent {
    /// Id.
    pub(crate) id: String,
    /// Type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// Time, by the provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at: Option<Time>,
}

impl From<zentra_admin::reconcile::Listed> for ListedEvent {
    fn from(from: zentra_admin::reconcile::Listed) -> Self {
        Self { id: from.id, kind: from.kind, at: from.at.map(Into::into) }
    }
}

/// State of an event of the list.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReconcileState {
    /// It never came.
    Missing,
    /// It is a dead letter.
    Dead,
    /// It came with another type.
    Differing,
    /// It was accepted; no worker has claimed it.
    Accepted,
    /// It didn't come yet, but is so recent that it can be on its way.
    Young,
    /// It came.
    Received,
    /// It never came, and was ingested now.
    Ingested,
    /// It never came; the provider was asked to send it again.
    AskedFor,
}

impl From<zentra_admin::reconcile::ReconcileState> for ReconcileState {
    fn from(from: zentra_admin::reconcile::ReconcileState) -> Self {
        match from {
            zentra_admin::reconcile::ReconcileState::Missing => Self::Missing,
            zentra_admin::reconcile::ReconcileState::Dead => Self::Dead,
            zentra_admin::reconcile::ReconcileState::Differing => Self::Differing,
            zentra_admin::reconcile::ReconcileState::Accepted => Self::Accepted,
            zentra_admin::reconcile::ReconcileState::Young => Self::Young,
            zentra_admin::reconcile::ReconcileState::Received => Self::Received,
            zentra_admin::reconcile::ReconcileState::Ingested => Self::Ingested,
            zentra_admin::reconcile::ReconcileState::AskedFor => Self::AskedFor,
        }
    }
}

/// One event of the list.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReconciledEvent {
    #[serde(flatten)]
    pub(crate) listed: ListedEvent,
    pub(crate) state: ReconcileState,
    /// Details.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) detail: String,
}

impl From<zentra_admin::reconcile::Row> for ReconciledEvent {
    fn from(from: zentra_admin::reconcile::Row) -> Self {
        Self { listed: from.listed.into(), state: from.state.into(), detail: from.detail }
    }
}

/// The result of a comparison.
#[derive(Serialize, ToSchema)]
pub(crate) struct Report {
    pub(crate) source: String,
    /// Number of events by state.
    pub(crate) counts: BTreeMap<String, usize>,
    /// Events that aren't simply received.
    pub(crate) events: Vec<ReconciledEvent>,
}

impl From<zentra_admin::reconcile::Report> for Report {
    fn from(from: zentra_admin::reconcile::Report) -> Self {
        Self {
            source: from.source,
            counts: from.counts,
            events: from.events.into_iter().map(Into::into).collect(),
        }
    }
}
