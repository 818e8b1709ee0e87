//! Copies of a destination's events, for developers.

use std::time::Duration;

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use zentra_admin::ErrorCode;
use zentra_admin::audit::Actor;
use zentra_admin::copies::Position;
use zentra_core::clock;
use zentra_worker::pull::{MOST, headers_of_copy};

use crate::State;
use crate::auth::Who;
use crate::consume::{ConsumedEvent, bounded, default_wait};
use crate::extract::{Answer, Path, Query};
use crate::problem::Problem;

/// Where copies begin.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listen {
    /// The `position` of the previous response. If it is missing, copies begin now.
    position: Option<String>,
    /// Begin this number of seconds ago, instead of a position.
    newer_than: Option<u32>,
    /// Maximum number of copies (default 100).
    #[serde(default = "most")]
    #[param(minimum = 1, maximum = 100)]
    max: usize,
    /// How long to wait for the first one: 0 to 20 s (default 20).
    #[serde(default = "default_wait")]
    #[param(maximum = 20)]
    wait_seconds: u32,
}

fn most() -> usize {
    MOST
}

/// Read copies of a destination's archived events, also of delivered ones. Deliveries do not
/// change. Each begin without a position is audited.
#[utoipa::path(
    get, path = "/v1/listen/{destination}", tag = "consume", security(("token" = [])),
    params(("destination" = String, Path), Listen),
    responses((status = 200, body = CopiedEvents), (status = "default", body = Problem))
)]
pub(super) async fn listen(
    who: Who,
    state: State,
    Path(destination): Path<String>,
    Query(Listen { position, newer_than, max, wait_seconds }): Query<Listen>,
) -> Answer<CopiedEvents> {
    who.may_consume(&destination)?;
    let wait = bounded(max, wait_seconds)?;
    let (from, begins) = match (position, newer_than) {
        (Some(_), Some(_)) => {
            return Err(Problem::invalid("position and newer_than cannot be combined"));
        }
        (Some(position), None) => (position.parse()?, None),
        (None, seconds) => {
            let age = Duration::from_secs(seconds.unwrap_or_default().into());
            let by = Actor { name: who.name(), reason: String::new() }.attribution();
            (Position::Since(clock::now().minus(age)), Some(by))
        }
    };
    let copies = state.copies(&destination, from, max, wait, begins.as_ref()).await?;
    let items = copies.events.into_iter().map(|copy| {
        let headers = headers_of_copy(&copy.key, &copy.event, copy.trace);
        let headers =
            headers.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
        Ok(ConsumedEvent::new(&copy.key, copy.event, headers))
    });
    Ok(Json(CopiedEvents {
        items: items.collect::<Result<_, Problem>>()?,
        position: copies.position.to_string(),
        not_archived: copies.not_archived,
    }))
}

/// Copies of events.
#[derive(Serialize, ToSchema)]
pub(crate) struct CopiedEvents {
    /// Oldest first. A callback that came several times is here several times.
    items: Vec<ConsumedEvent>,
    /// Where the next request goes on. It is opaque.
    position: String,
    /// Sources that the destination subscribes to, and whose events are not archived.
    not_archived: Vec<String>,
}
