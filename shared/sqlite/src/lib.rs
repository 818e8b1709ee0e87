//! The backend for one machine: both seams of `zentra-store` on one SQLite file.
//!
//! Durable: what is confirmed survives `kill -9` and a power cut. [`lifecycle::step`] alone
//! decides about claims. One program works on the file. Operators' commands may read and change it
//! meanwhile.
//!
//! [`lifecycle::step`]: zentra_core::lifecycle::step

mod archive;
mod consumer;
mod control;
mod export;
mod incidents;
mod jobs;
mod journal;
mod metrics;
mod open;
mod plan;
mod queue;
mod store;
mod sweep;
mod walk;

pub use archive::EmbeddedArchived;
pub use consumer::{EmbeddedConsumer, EmbeddedFetcher, EmbeddedReceipt};
pub use export::{Export, ExportedMessage, Inventory, QueueLocation};
pub use journal::EmbeddedJournal;
pub use plan::plan;
pub use queue::EmbeddedQueue;
pub use store::{Store, StoreError};
pub use walk::{EmbeddedWalk, WalkReceipt};
