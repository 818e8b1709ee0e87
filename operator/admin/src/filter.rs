//! Which deliveries a use case is about: one filter for the command line and the API.

use std::time::Duration;

use zentra_config::Config;
use zentra_core::clock::Timestamp;
use zentra_core::lifecycle::DeadReason;
use zentra_store::job::Scope;

use crate::error::{AdminError, ErrorCode};

/// How many items a list has by default.
pub const DEFAULT_LIMIT: usize = 100;
/// How many dead letters a pass may take by default.
pub const DEFAULT_LETTERS: usize = 1_000_000;
/// How many dead letters a second a pass takes by default.
pub const DEFAULT_RATE: u32 = 100;

/// Which dead letters. Fields that are `None` select all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of this destination.
    pub destination: Option<String>,
    /// Those of this source.
    pub source: Option<String>,
    /// Those that are dead for this reason.
    pub reason: Option<String>,
    /// Those of this event type.
    pub kind: Option<String>,
    /// Those received longer ago than this.
    pub older_than: Option<Duration>,
    /// Those received less long ago than this.
    pub newer_than: Option<Duration>,
}

impl Filter {
    /// Whether it selects all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// For the audit log and job lists: `destination=ledger reason=exhausted`; empty if it selects all.
    pub fn words(&self) -> String {
        let age =
            |age: &Option<Duration>| age.map(|age| humantime::format_duration(age).to_string());
        let fields = [
            ("destination", self.destination.clone()),
            ("source", self.source.clone()),
            ("reason", self.reason.clone()),
            ("type", self.kind.clone()),
            ("older_than", age(&self.older_than)),
            ("newer_than", age(&self.newer_than)),
        ];
        let fields =
            fields.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        fields.collect::<Vec<_>>().join(" ")
    }

    /// As of now: ages become times. The destination is its queue's.
    pub fn scope(&self, now: Timestamp) -> Scope {
        let ago = |age: Option<Duration>| age.map(|age| now.minus(age));
        Scope {
            source: self.source.clone(),
            reason: self.reason.clone(),
            kind: self.kind.clone(),
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
        AdminError::new(ErrorCode::InvalidRequest, format!("there is no reason {name}."))
            .hint(format!("There are: {all}."))
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
        Some(name) => {
            let message = format!("there is no destination {name}.");
            Err(AdminError::new(ErrorCode::DestinationNotFound, message)
                .hint(format!("The config has: {}.", all.join(", ")))
                .about(name))
        }
    }
}
