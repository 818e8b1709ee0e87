//! The seams: what carries events, what remembers deliveries, and how operators and workers reach
//! each other. Traits and their data; each backend is a crate of its own.
#![warn(missing_docs)]

#[cfg(feature = "conformance")]
pub mod conformance;
pub mod control;
pub mod delivery;
pub mod incident;
pub mod job;
pub mod journal;
pub mod plan;
pub mod queue;
pub mod storage;
pub mod stored;
