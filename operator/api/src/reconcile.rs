//! Comparison with a provider's list of events.

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
        return Err(Problem::invalid("10,000 events at most"));
    }
    let actor = actor(&who, &because)?;
    Ok(Json(state.reconcile(&source, &events, ingest.then_some(&actor)).await?))
}
