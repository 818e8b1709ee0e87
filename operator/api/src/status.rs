//! Status and metrics.

use axum::Json;
use zentra_admin::ErrorCode;
use zentra_admin::status::{Status, metrics as exposition};

use crate::State;
use crate::extract::Answer;
use crate::problem::Problem;

/// Whether all is well: parts, sources, destinations, and what is wrong.
#[utoipa::path(
    get, path = "/v1/status", tag = "look", security(("token" = [])),
    responses((status = 200, body = Status), (status = "default", body = Problem))
)]
pub(super) async fn status(state: State) -> Answer<Status> {
    Ok(Json(state.status().await?))
}

/// The status, for Prometheus: parts, queues and workers as of now; what the newest deliveries say is a minute
/// old at most. It holds no message back from others.
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
