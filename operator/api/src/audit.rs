//! The audit log.

use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;
use zentra_admin::list::List;
use zentra_store::control::{AuditEntry, Role};

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Query, default_limit, within};
use crate::problem::Problem;

/// Filters for the audit log.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Audit {
    /// Maximum number of items to return (default 100).
    #[serde(default = "default_limit")]
    #[param(minimum = 1, maximum = 1000)]
    limit: usize,
}

/// List operators' actions, newest first. Needs the role admin.
#[utoipa::path(
    get, path = "/v1/audit", tag = "look", params(Audit), security(("token" = [])),
    responses((status = 200, body = List<AuditEntry>), (status = "default", body = Problem))
)]
pub(super) async fn audit(
    who: Who,
    state: State,
    Query(asked): Query<Audit>,
) -> Answer<List<AuditEntry>> {
    who.may(Role::Admin)?;
    Ok(Json(state.audited(within(asked.limit)?).await?.into()))
}
