//! The filter for dead letters: one for the command line and the API.

use std::time::Duration;

use zentra_config::Config;
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::DeadReason;
use zentra_store::job::Scope;

use crate::error::{AdminError, ErrorCode};

/// Default number of items of a list.
pub const DEFAULT_LIMIT: usize = 100;
/// Default maximum number of dead letters of a pass.
pub const DEFAULT_LETTERS: usize = 1_000_000;
/// Default number of dead letters per second of a pass.
pub const DEFAULT_RATE: u32 = 100;

/// A filter for dead letters. `None` matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this destination.
    pub destination: Option<String>,
    /// Only this source.
    pub source: Option<String>,
    /// Only this reason.
    pub reason: Option<String>,
    /// Only this event type.
    pub kind: Option<String>,
    /// Only this error: `answered 503`, or the text of the last attempt's error.
    pub error: Option<String>,
    /// Only letters received longer ago than this.
    pub older_than: Option<Duration>,
    /// Only letters received within this time.
    pub newer_than: Option<Duration>,
}

impl Filter {
    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Text for the audit log and job lists: `destination=ledger reason=exhausted`; empty if it
    /// matches everything.
    pub fn words(&self) -> String {
        let age =
            |age: &Option<Duration>| age.map(|age| humantime::format_duration(age).to_string());
        let fields = [
            ("destination", self.destination.clone()),
            ("source", self.source.clone()),
            ("reason", self.reason.clone()),
            ("type", self.kind.clone()),
            ("error", self.error.as_ref().map(|error| format!("{error:?}"))),
            ("older_than", age(&self.older_than)),
            ("newer_than", age(&self.newer_than)),
        ];
        let fields =
            fields.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        fields.collect::<Vec<_>>().join(" ")
    }

    /// The scope at a time: ages become times. The destination is the queue's.
    pub fn scope(&self, now: Timestamp) -> Scope {
        let ago = |age: Option<Duration>| age.map(|age| now.minus(age));
        Scope {
            source: self.source.clone(),
            reason: self.reason.clone(),
            kind: self.kind.clone(),
            error: self.error.clone(),
            before: ago(self.older_than),
            after: ago(self.newer_than),
        }
    }
}

/// The reason of this name.
///
/// # Errors
/// [`ErrorCode::InvalidRequest`] with all that there are.
pub fn dead_reason(name: &str) -> Result<DeadReason, AdminError> {
    DeadReason::named(name).ok_or_else(|| {
        let all = DeadReason::ALL.map(DeadReason::as_str).join(", ");
        AdminError::new(ErrorCode::InvalidRequest, format!("unknown reason {name}."))
            .hint(format!("Valid reasons: {all}."))
    })
}

/// The destinations of the configuration: all, or the one of this name.
///
/// # Errors
/// [`ErrorCode::DestinationNotFound`].
pub fn destinations(config: &Config, only: Option<&str>) -> Result<Vec<String>, AdminError> {
    let all: Vec<String> = config.destinations.iter().map(|d| d.name.clone()).collect();
    match only {
        None => Ok(all),
        Some(name) if all.iter().any(|known| known == name) => Ok(vec![name.to_owned()]),
        Some(name) => Err(unknown_destination(config, name)),
    }
}

/// The error about a destination that the configuration does not have.
pub(crate) fn unknown_destination(config: &Config, name: &str) -> AdminError {
    let all: Vec<&str> = config.destinations.iter().map(|one| one.name.as_str()).collect();
    let message = format!("unknown destination {name}.");
    AdminError::new(ErrorCode::DestinationNotFound, message)
        .hint(format!("The configuration has: {}.", all.join(", ")))
        .about(name)
}
