//! What happened within the last hour.

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use zentra_admin::series;
use zentra_store::control::{Counts, TALLY_STEP};

use crate::State;
use crate::extract::Answer;
use crate::problem::Problem;
use crate::time::Time;

/// Show the last hour in steps of ten seconds, for each destination and source. It is kept in memory
/// from the start of this server on.
#[utoipa::path(
    get, path = "/v1/series", tag = "look", security(("token" = [])),
    responses((status = 200, body = Window), (status = "default", body = Problem))
)]
pub(super) async fn series(state: State) -> Answer<Window> {
    Ok(Json(state.series().into()))
}

/// A window of steps that ends with the last complete one.
#[derive(Serialize, ToSchema)]
pub(crate) struct Window {
    /// Begin of the first step.
    pub(crate) from: Time,
    /// Length of a step.
    pub(crate) step_seconds: u64,
    /// Number of steps, and so of values in each list.
    pub(crate) steps: usize,
    /// The configured destinations.
    pub(crate) destinations: Vec<Line>,
    /// Sources in which something happened, summed over destinations: at most 200, the busiest ones.
    pub(crate) sources: Vec<Line>,
}

/// The counts of one name, a value for each step.
#[derive(Serialize, ToSchema)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Deliveries whose first attempt began.
    pub(crate) taken: Vec<u64>,
    /// Attempts that were successful.
    pub(crate) delivered: Vec<u64>,
    /// Attempts that failed.
    pub(crate) failed: Vec<u64>,
    /// Deliveries that became dead letters.
    pub(crate) dead: Vec<u64>,
}

impl From<series::Window> for Window {
    fn from(from: series::Window) -> Self {
        Self {
            from: from.from.into(),
            step_seconds: TALLY_STEP.as_secs(),
            steps: from.steps,
            destinations: from.destinations.into_iter().map(Into::into).collect(),
            sources: from.sources.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<series::Line> for Line {
    fn from(series::Line { name, counts }: series::Line) -> Self {
        let of = |value: fn(&Counts) -> u64| counts.iter().map(value).collect();
        Self {
            taken: of(|counts| counts.taken),
            delivered: of(|counts| counts.delivered),
            failed: of(|counts| counts.failed),
            dead: of(|counts| counts.dead),
            name,
        }
    }
}
