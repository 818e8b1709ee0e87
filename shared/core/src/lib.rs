//! The event and its delivery as values: envelope, seal, identity, lifecycle, retry schedule. No I/O
//! but reading the clock.
#![warn(missing_docs)]

pub mod address;
pub mod clock;
pub mod event;
pub mod lifecycle;
pub mod printable;
pub mod redact;
pub mod refused;
pub mod retry;
pub mod seal;
pub mod source;
pub mod trace;
