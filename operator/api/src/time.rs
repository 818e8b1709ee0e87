//! Times in requests and answers.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zentra_core::clock::Timestamp;

/// A time. Requests may also have milliseconds since 1970.
#[derive(Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(
    as = Timestamp,
    value_type = String,
    format = DateTime,
    description = "RFC 3339 with milliseconds, in UTC.",
    example = "2026-11-28T19:37:55.725Z"
)]
pub(crate) struct Time(Timestamp);

impl From<Timestamp> for Time {
    fn from(time: Timestamp) -> Self {
        Self(time)
    }
}

impl From<Time> for Timestamp {
    fn from(Time(time): Time) -> Self {
        time
    }
}
