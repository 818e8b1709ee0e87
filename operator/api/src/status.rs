//! Status and metrics.

use axum::Json;
use zentra_admin::ErrorCode;
use zentra_admin::status::{Status, metrics as exposition};

use crate::State;
use crate::extract::Answer;
use crate::problem::Problem;

/// Show the health of parts, sources and destinations.
#[utoipa::path(
    get, path = "/v1/status", tag = "look", security(("token" = [])),
    responses((status = 200, body = Status), (status = "default", body = Problem))
)]
pub(super) async fn status(state: State) -> Answer<Status> {
    Ok(Json(state.status().await?))
}

/// The status as Prometheus metrics. Parts, queues and workers are current; figures of the newest
/// deliveries are at most a minute old. It holds no message.
#[utoipa::path(
    get, path = "/v1/metrics", tag = "look", security(("token" = [])),
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = Problem)
    )
)]
pub(super) async fn metrics(state: State) -> Result<String, Problem> {
    let text = exposition(&state.metrics().await?);
    text.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))
}
