//! One machine's backend: one SQLite file behind both seams.
//!
//! Durable: what is confirmed survives kill -9 and a power cut. [`lifecycle::step`] decides
//! about claims, and nothing else does. One program works on the file; operators' commands may
//! look into it and change it meanwhile.
//!
//! [`lifecycle::step`]: zentra_core::lifecycle::step

mod archive;
mod consumer;
mod control;
mod export;
mod jobs;
mod journal;
mod metrics;
mod open;
mod queue;
mod store;
mod sweep;
mod walk;

pub use archive::EmbeddedArchived;
pub use consumer::{EmbeddedConsumer, EmbeddedReceipt};
pub use export::{Export, ExportedMessage, Inventory, QueueLocation};
pub use journal::EmbeddedJournal;
pub use queue::EmbeddedQueue;
pub use store::{Store, StoreError};
pub use walk::{EmbeddedWalk, WalkReceipt};
