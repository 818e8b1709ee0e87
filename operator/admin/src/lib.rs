//! Use cases of operators, for the command line and the HTTP API. They return data and
//! [`AdminError`]s. Nothing here prints, or knows an option of the command line or an HTTP status.

pub mod archive;
pub mod audit;
pub mod backend;
pub mod copies;
pub mod dead;
pub mod deliveries;
pub mod destinations;
pub mod doctor;
pub mod error;
pub mod event;
#[cfg(test)]
mod fakes;
pub mod filter;
pub mod http_client;
pub mod job;
pub mod list;
mod look;
pub mod migrate;
pub mod notify;
pub mod payload;
pub mod plan;
pub mod progress;
pub mod reconcile;
pub mod refused;
pub mod series;
pub mod shards;
pub mod status;
pub mod test_callback;
pub mod tokens;
pub mod unrouted;

pub use backend::Backend;
pub use error::{AdminError, ErrorCode};
