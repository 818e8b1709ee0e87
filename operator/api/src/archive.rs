//! The archive.

use std::time::Duration;

use axum::Json;
use axum::response::IntoResponse;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zentra_admin::archive::{self, ArchiveFilter};

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Path, Query, attached, default_limit, looks, within};
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

/// Filters for archived events.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Archived {
    /// Only this source.
    source: Option<String>,
    /// Only this event type.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Maximum age in seconds.
    newer_than: Option<u32>,
    /// Maximum number of items to return (default 100).
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// List archived events, oldest first.
#[utoipa::path(
    get, path = "/v1/archive", tag = "look", params(Archived), security(("token" = [])),
    responses((status = 200, body = List<ArchivedEvent>), (status = "default", body = Problem))
)]
pub(super) async fn archived(
    state: State,
    Query(Archived { source, kind, newer_than, limit }): Query<Archived>,
) -> Answer<List<ArchivedEvent>> {
    let newer_than = newer_than.map(|seconds| Duration::from_secs(seconds.into()));
    let wanted = ArchiveFilter { source, kind, newer_than, limit: within(limit)? };
    Ok(Json(state.archived(&wanted).await?.into()))
}

/// Which one of several events with the same id is meant.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Among {
    /// Only of this source.
    source: Option<String>,
    /// The one with this body, if there is one: SHA-256, in hex.
    body_sha256: Option<String>,
}

/// The original body of an archived event. Needs a token with payloads. Each look is audited.
#[utoipa::path(
    get, path = "/v1/archive/{id}/body", tag = "look", security(("token" = [])),
    params(("id" = String, Path, description = "The provider's id, or the identity"), Among),
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn body(
    who: Who,
    state: State,
    Path(id): Path<String>,
    Query(Among { source, body_sha256 }): Query<Among>,
) -> Result<impl IntoResponse, Problem> {
    let attribution = looks(&who)?;
    let among = archive::Among { source, body_sha256 };
    Ok(attached(state.archived_body(&id, &among, &attribution).await?))
}

/// An archived event.
#[derive(Serialize, ToSchema)]
pub(crate) struct ArchivedEvent {
    pub(crate) source: String,
    pub(crate) event_id: Option<String>,
    /// Identity, as in its delivery keys.
    pub(crate) identity: String,
    pub(crate) event_type: Option<String>,
    pub(crate) received_at: Time,
    pub(crate) bytes: usize,
}

impl From<zentra_admin::archive::ArchivedEvent> for ArchivedEvent {
    fn from(from: zentra_admin::archive::ArchivedEvent) -> Self {
        Self {
            source: from.source,
            event_id: from.event_id,
            identity: from.identity,
            event_type: from.event_type,
            received_at: from.received_at.into(),
            bytes: from.bytes,
        }
    }
}
