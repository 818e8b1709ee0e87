//! What every Zentra binary agrees on.
#![warn(missing_docs)]

pub mod clock;
pub mod config;
pub mod control;
pub mod delivery;
pub mod event;
pub mod job;
pub mod journal;
pub mod lifecycle;
pub mod printable;
pub mod queue;
pub mod redact;
pub mod refused;
pub mod retry;
pub mod seal;
pub mod secret;
pub mod shutdown;
pub mod sign;
pub mod storage;
pub mod telemetry;
pub mod trace;
pub mod verify;
