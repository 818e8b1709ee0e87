//! Comparison with a provider's own list of events.

use axum::Json;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use zentra_admin::reconcile::Report;
use zentra_store::control::Role;

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, actor};
use crate::problem::Problem;

/// A provider's own list of events.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reconcile {
    /// Whose events.
    source: String,
    /// Each as the provider sends it, or with its id and type alone: 10,000 at most.
    #[schema(max_items = 10_000, value_type = Vec<Object>)]
    events: Vec<Box<RawValue>>,
    /// Whether what is missing is ingested. Only where the server has the sources' secrets.
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
        return Err(Problem::invalid("10,000 events at most"));
    }
    let actor = actor(&who, &because)?;
    Ok(Json(state.reconcile(&source, &events, ingest.then_some(&actor)).await?))
}
