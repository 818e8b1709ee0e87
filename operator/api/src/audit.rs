//! The audit log.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zentra_store::control::{self, Role};

use crate::State;
use crate::auth::Who;
use crate::extract::{Answer, Query, default_limit, within};
use crate::list::List;
use crate::problem::Problem;
use crate::time::Time;

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

/// Who did something, when, and why.
#[derive(Serialize, ToSchema)]
pub(crate) struct Attribution {
    /// Name of the operator or program.
    pub(crate) by: String,
    /// Time, by the operator's clock.
    pub(crate) at: Time,
    /// Reason; empty if none was given.
    pub(crate) because: String,
}

impl From<control::Attribution> for Attribution {
    fn from(from: control::Attribution) -> Self {
        Self { by: from.by, at: from.at.into(), because: from.because }
    }
}

/// One entry of the audit log.
#[derive(Serialize, ToSchema)]
pub(crate) struct AuditEntry {
    /// The action, named as on the command line: `destination pause`.
    pub(crate) action: String,
    /// The object: a destination, an event, a filter.
    pub(crate) on: String,
    /// The result; empty if the histories have it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) result: String,
    /// Who, when and why.
    #[serde(flatten)]
    pub(crate) attribution: Attribution,
}

impl From<control::AuditEntry> for AuditEntry {
    fn from(from: control::AuditEntry) -> Self {
        Self {
            action: from.action,
            on: from.on,
            result: from.result,
            attribution: from.attribution.into(),
        }
    }
}
