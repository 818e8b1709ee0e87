//! An inbox: which deliveries a handler has done, written in the handler's own database
//! transaction.
//!
//! A worker can die between a handler's commit and its own note of it; the delivery then
//! comes again. With the key in the same transaction as the effect, that second attempt finds
//! it, and does nothing: at-least-once delivery ends in one effect.
//!
//! ```text
//! begin
//!   first(key)?  no  → it is done: commit nothing, return Ok
//!                yes → write the effect
//! commit
//! ```
//!
//! Each database is a feature: `inbox-sqlite` (rusqlite), `inbox-postgres` (tokio-postgres). Applications in Node and
//! Python use the same table: see Zentra's `docs/inbox.md`.
//! A key may be forgotten once no copy of it can come any more: after the source's
//! `retention` at the earliest.

/// Old keys are removed by this many at a time, so that nothing waits long for a lock.
#[cfg(any(feature = "inbox-postgres", feature = "inbox-sqlite"))]
const PORTION: i64 = 10_000;

#[cfg(feature = "inbox-postgres")]
pub mod postgres;
#[cfg(feature = "inbox-sqlite")]
pub mod sqlite;
