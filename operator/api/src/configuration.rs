//! The configuration in force, without secrets.

use std::time::Duration;

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;
use zentra_admin::test_callback::Samples;
use zentra_config::{Breaker, Config};
use zentra_core::source::Source;

use crate::State;
use crate::extract::Answer;
use crate::problem::Problem;

/// Show the configuration that this server has read. Secrets, and what may be one in a URL (user,
/// password, path, query), are left out.
#[utoipa::path(
    get, path = "/v1/config", tag = "look", security(("token" = [])),
    responses((status = 200, body = Configuration), (status = "default", body = Problem))
)]
pub(super) async fn configuration(state: State) -> Answer<Configuration> {
    Ok(Json(state.config().into()))
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Configuration {
    /// Version of this server.
    pub(crate) version: &'static str,
    /// Prefix of every exchange, queue and Redis key.
    pub(crate) namespace: String,
    /// Whether everything is in one file, instead of RabbitMQ and Redis.
    pub(crate) embedded: bool,
    /// Whether a source has `environment = "production"`.
    pub(crate) production: bool,
    /// How long deliveries are remembered, unless their source says otherwise.
    pub(crate) retention_seconds: u64,
    pub(crate) sources: Vec<SourceSettings>,
    pub(crate) destinations: Vec<DestinationSettings>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SourceSettings {
    pub(crate) name: String,
    pub(crate) provider: String,
    /// Path of its callbacks at the ingress.
    pub(crate) path: String,
    /// Address that the provider sends to, if it signs the address.
    pub(crate) public_url: Option<String>,
    /// Environment of its events, in the user's words.
    pub(crate) environment: String,
    pub(crate) retention_seconds: u64,
    /// Maximum size of a body, in bytes.
    pub(crate) max_body: usize,
    /// Whether accepted events are archived.
    pub(crate) archive: bool,
    /// Whether tests verify callbacks that the vendor's own SDK has signed or judged.
    pub(crate) proven: bool,
    /// What its scheme leaves open; null if nothing.
    pub(crate) weakness: Option<String>,
    /// Whether the provider sends the same bytes for different events.
    pub(crate) at_least_once: bool,
    /// Types of the events of which there are samples, for test callbacks.
    pub(crate) samples: Vec<String>,
    /// Where the provider documents its scheme.
    pub(crate) documentation: Option<String>,
    pub(crate) note: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct DestinationSettings {
    pub(crate) name: String,
    /// Null for a handler, and where consumers pull.
    pub(crate) url: Option<String>,
    /// Duration of a consumer's lease, where consumers pull.
    pub(crate) lease_seconds: Option<u64>,
    pub(crate) subscribe: Vec<String>,
    pub(crate) timeout_ms: u64,
    /// Maximum number of attempts at a time, for each worker.
    pub(crate) concurrency: u16,
    /// Maximum number of attempts per second, for each worker; 0 means no limit.
    pub(crate) rate: u32,
    /// Number of work queues.
    pub(crate) shards: u16,
    /// Statuses that dead-letter an event at once.
    pub(crate) permanent: Vec<u16>,
    pub(crate) allow_private: bool,
    pub(crate) retry: RetrySettings,
    pub(crate) circuit: CircuitSettings,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct RetrySettings {
    /// Number of attempts, the first one included.
    pub(crate) attempts: u32,
    pub(crate) initial_ms: u64,
    pub(crate) multiplier: f64,
    pub(crate) max_ms: u64,
    pub(crate) max_retry_after_ms: u64,
    /// Random part of a delay.
    pub(crate) jitter: f64,
    /// Age beyond which an event is not retried.
    pub(crate) max_age_seconds: u64,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct CircuitSettings {
    /// Number of failures that opens it; 0 means never.
    pub(crate) failures: u32,
    pub(crate) first_pause_ms: u64,
    pub(crate) pause_ms: u64,
}

impl From<&Config> for Configuration {
    fn from(from: &Config) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            namespace: from.namespace.clone(),
            embedded: from.embedded.is_some(),
            production: from.sources.iter().any(|source| source.environment == "production"),
            retention_seconds: from.store.retention.as_secs(),
            sources: from.sources.iter().map(Into::into).collect(),
            destinations: from.destinations.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Source> for SourceSettings {
    fn from(from: &Source) -> Self {
        let scheme = &from.endpoint.scheme;
        Self {
            name: from.name.clone(),
            provider: from.endpoint.provider.clone(),
            path: format!("/in/{}", from.name),
            public_url: from.endpoint.public_url.clone(),
            environment: from.environment.clone(),
            retention_seconds: from.retention.as_secs(),
            max_body: from.endpoint.max_body,
            archive: from.archive,
            proven: scheme.proof.is_some(),
            weakness: scheme.weakness().map(|weakness| weakness.words().to_string()),
            at_least_once: scheme.delivers_at_least_once(),
            samples: samples(&from.endpoint.provider),
            documentation: scheme.documents.as_ref().map(ToString::to_string),
            note: scheme.note.clone(),
        }
    }
}

impl From<&zentra_config::Destination> for DestinationSettings {
    fn from(from: &zentra_config::Destination) -> Self {
        let retry = &from.retry;
        let Breaker { failures, first_pause, pause } = &from.circuit;
        Self {
            name: from.name.clone(),
            url: from.url.as_ref().map(without_secrets),
            lease_seconds: from.pull.map(|lease| lease.as_secs()),
            subscribe: from.subscribe.clone(),
            timeout_ms: millis(from.timeout),
            concurrency: from.concurrency,
            rate: from.rate,
            shards: from.shards,
            permanent: from.permanent.iter().map(http::StatusCode::as_u16).collect(),
            allow_private: from.allow_private,
            retry: RetrySettings {
                attempts: retry.attempts,
                initial_ms: millis(retry.initial),
                multiplier: retry.multiplier,
                max_ms: millis(retry.max),
                max_retry_after_ms: millis(retry.max_retry_after),
                jitter: retry.jitter,
                max_age_seconds: retry.max_age.as_secs(),
            },
            circuit: CircuitSettings {
                failures: *failures,
                first_pause_ms: millis(*first_pause),
                pause_ms: millis(*pause),
            },
        }
    }
}

fn samples(provider: &str) -> Vec<String> {
    let samples = Samples::of(provider);
    samples.iter().flat_map(Samples::types).map(str::to_owned).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// A URL without user, password, path and query: some addresses have a secret in their path.
fn without_secrets(url: &http::Uri) -> String {
    let scheme = url.scheme_str().unwrap_or("http");
    let host = url.host().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let rest = if matches!(url.path(), "" | "/") && url.query().is_none() { "/" } else { "/…" };
    format!("{scheme}://{host}{port}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_url_has_no_user_no_path_and_no_query() {
        let shown = |url: &str| without_secrets(&url.parse().unwrap());
        assert_eq!(shown("https://user:pass@app.example:8443/hooks"), "https://app.example:8443/…");
        assert_eq!(shown("http://[::1]:3000/x?token=secret"), "http://[::1]:3000/…");
        assert_eq!(shown("http://app:3000"), "http://app:3000/");
    }
}
