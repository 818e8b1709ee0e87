//! Every test that involves several processes, in one binary, so that they share one broker and
//! one Redis.
#![expect(clippy::unwrap_used, reason = "tests may fail loudly")]

mod alarm;
mod api;
mod bounds;
mod broker;
mod certificates;
mod chaos;
mod conformance;
mod control;
mod crates;
mod destinations;
mod faults;
mod find;
mod fuzzed;
mod handlers;
mod handshakes;
mod harness;
mod identity;
mod ingress;
mod isolation;
mod job;
mod journal;
mod manual;
mod migrate;
mod operator;
mod providers;
mod published;
mod queue;
mod reconcile;
mod redact;
mod refused;
mod rehearse;
mod reload;
mod request;
mod routes;
mod secured;
mod seen;
mod shards;
mod source;
mod standalone;
mod status;
mod stores;
mod tls;
mod unsealed;
mod worker;
