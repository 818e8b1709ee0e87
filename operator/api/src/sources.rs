//! Signed test callbacks.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zentra_admin::test_callback::Prepared;
use zentra_store::control::Role;

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Body, Path, actor};
use crate::problem::Problem;

/// A test callback.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TestCallback {
    /// Type of the event, one of the source's `samples`.
    #[serde(rename = "type")]
    kind: String,
    /// Reason, for the audit log: at most 1000 bytes.
    #[serde(default)]
    #[schema(max_length = 1000)]
    because: String,
}

/// Send a signed sample to the ingress, as the provider would. The event is delivered like any other. Only if the
/// server has the sources' secrets, and not to sources with `environment = "production"`.
#[utoipa::path(
    post, path = "/v1/sources/{source}/test", tag = "act", params(("source" = String, Path)),
    security(("token" = [])), request_body = TestCallback,
    responses((status = 200, body = SentCallback), (status = "default", body = Problem))
)]
pub(super) async fn test(
    who: Who,
    state: State,
    Path(source): Path<String>,
    Body(TestCallback { kind, because }): Body<TestCallback>,
) -> Answer<SentCallback> {
    who.may(Role::Operator)?;
    let actor = actor(&who, &because)?;
    Ok(Json(state.test_callback(&source, &kind, &actor).await?.into()))
}

/// A test callback that was sent.
#[derive(Serialize, ToSchema)]
pub(crate) struct SentCallback {
    /// Where it was sent.
    pub(crate) url: String,
    #[serde(rename = "type")]
    pub(crate) kind: Option<String>,
    /// The event's ID.
    pub(crate) event_id: Option<String>,
    /// The ingress's status, with its reason if there is one; or why there was no response.
    pub(crate) answer: String,
}

impl From<(Prepared, String)> for SentCallback {
    fn from((prepared, answer): (Prepared, String)) -> Self {
        let Prepared { url, kind, event_id, .. } = prepared;
        Self { url, kind, event_id, answer }
    }
}
