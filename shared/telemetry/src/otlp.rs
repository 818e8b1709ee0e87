//! Export of spans to an OpenTelemetry collector: OTLP over HTTP, as protobuf.
//!
//! Off without an endpoint. Everything is set by OpenTelemetry's environment variables
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>,
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).
//!
//! A thread of its own collects spans in a bounded queue. If the collector does not answer, spans are dropped and
//! counted; nothing waits for it.

use std::env;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData};
use opentelemetry_sdk::{Resource, resource::ResourceDetector};
use prometheus::{IntCounter, Registry};
use rustls::{ClientConfig, RootCertStore};

use crate::trace::TRACER;

/// Where spans go, of the first variable that is set. Without one, tracing is off.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
/// Time limit for one export, if no variable sets another.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Time for the last spans when a program ends.
const LAST: Duration = Duration::from_secs(3);
/// Maximum number of bytes read of a collector's answer.
const MOST: usize = 64 << 10;

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The spans of this program.
struct Counters {
    /// Spans that ended, and are to be exported.
    recorded: IntCounter,
    /// Spans that the collector accepted.
    exported: IntCounter,
}

static COUNTERS: OnceLock<Counters> = OnceLock::new();

/// Starts to export spans, if there is an endpoint. Settings that cannot be used are logged, and nothing is exported:
/// tracing never stops a program. Must be called in a runtime, once.
pub fn start(program: &'static str) {
    let Some(endpoint) = endpoint() else { return };
    let exporter = match exporter() {
        Ok(exporter) => exporter,
        Err(error) => {
            return tracing::error!(error, "no spans are exported: see docs/tracing.md");
        }
    };
    let provider = SdkTracerProvider::builder()
        .with_resource(resource(program))
        .with_batch_exporter(Exporter { exporter, is_down: AtomicBool::new(false) })
        .build();
    if TRACER.set(provider.tracer("zentra")).is_ok() {
        let _ = PROVIDER.set(provider);
        tracing::info!(endpoint = without_secrets(&endpoint), "spans are exported");
    }
}

/// Exports the last spans, within three seconds.
pub async fn finish() {
    if let Some(provider) = PROVIDER.get() {
        // It waits for a thread that waits for this runtime.
        let end = || provider.shutdown_with_timeout(LAST);
        let _ = tokio::time::timeout(LAST, tokio::task::spawn_blocking(end)).await;
    }
}

/// Registers the counters of spans. Spans are counted from then on.
///
/// # Errors
/// If the registry has them.
pub fn register(registry: &Registry) -> prometheus::Result<()> {
    let counters = match COUNTERS.get() {
        Some(counters) => counters,
        None => {
            let (recorded, exported) = (
                IntCounter::new("zentra_spans_total", "Spans that ended and are to be exported.")?,
                IntCounter::new(
                    "zentra_spans_exported_total",
                    "Spans that the collector accepted.",
                )?,
            );
            COUNTERS.get_or_init(|| Counters { recorded, exported })
        }
    };
    registry.register(Box::new(counters.recorded.clone()))?;
    registry.register(Box::new(counters.exported.clone()))
}

/// Counts a span that ended.
pub(crate) fn count_recorded() {
    if let Some(counters) = COUNTERS.get() {
        counters.recorded.inc();
    }
}

/// The first of these variables that is set and not empty.
fn first(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()))
}

fn endpoint() -> Option<String> {
    let is_off = first(&["OTEL_SDK_DISABLED"]).is_some_and(|it| it.eq_ignore_ascii_case("true"))
        || first(&["OTEL_TRACES_EXPORTER"]).is_some_and(|it| it != "otlp");
    first(&ENDPOINTS).filter(|_| !is_off)
}

/// Scheme, host and port: a user, a path or a query may be a secret.
fn without_secrets(endpoint: &str) -> String {
    let address = endpoint.parse::<http::Uri>().unwrap_or_default();
    let port = address.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", address.scheme_str().unwrap_or("?"), address.host().unwrap_or("?"))
}

fn exporter() -> Result<SpanExporter, String> {
    if let Some(protocol) = first(&PROTOCOLS).filter(|it| it != "http/protobuf") {
        return Err(format!("the protocol {protocol} is not supported, only http/protobuf"));
    }
    let client = Collector::new().map_err(|error| format!("cannot use TLS: {error}"))?;
    let builder = SpanExporter::builder().with_http().with_http_client(client);
    builder.build().map_err(|error| error.to_string())
}

/// What describes this program. The variables come first.
fn resource(program: &'static str) -> Resource {
    let named = EnvResourceDetector::new().detect();
    let is_named = first(&["OTEL_SERVICE_NAME"]).is_some()
        || named.get(&opentelemetry::Key::from_static_str("service.name")).is_some();
    let resource = Resource::builder()
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match is_named {
        true => resource.build(),
        false => resource.with_service_name(program).build(),
    }
}

/// Counts what the collector accepts, and logs once when it accepts nothing.
#[derive(Debug)]
struct Exporter {
    exporter: SpanExporter,
    is_down: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let exported = self.exporter.export(batch).await;
        let was_down = self.is_down.swap(exported.is_err(), Ordering::Relaxed);
        match &exported {
            Ok(()) => {
                if let Some(counters) = COUNTERS.get() {
                    counters.exported.inc_by(spans);
                }
                if was_down {
                    tracing::info!("the collector accepts spans again");
                }
            }
            Err(error) if !was_down => {
                tracing::warn!(%error, "the collector accepts no spans: they are dropped");
            }
            Err(_) => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Sends to the collector, on the program's runtime: the exporter's thread has none.
#[derive(Debug)]
struct Collector {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: tokio::runtime::Handle,
    timeout: Duration,
}

impl Collector {
    fn new() -> Result<Self, rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let tls =
            ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls);
        let connector = connector.https_or_http().enable_http1().build();
        let millis = first(&TIMEOUTS).and_then(|text| text.parse().ok());
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            runtime: tokio::runtime::Handle::current(),
            timeout: millis.map_or(TIMEOUT, Duration::from_millis),
        })
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (sent, timeout) = (self.client.request(request.map(Full::new)), self.timeout);
        let exchange = async {
            let (parts, body) = sent.await?.into_parts();
            let body = Limited::new(body, MOST).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(parts, body))
        };
        let bounded = async move { tokio::time::timeout(timeout, exchange).await? };
        self.runtime.spawn(bounded).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_logged_without_its_secrets() {
        for (endpoint, shown) in [
            ("http://collector:4318", "http://collector:4318"),
            (
                "https://user:secret@eu.example.com/v1/traces?api-key=secret",
                "https://eu.example.com",
            ),
            ("no address", "?://?"),
        ] {
            assert_eq!(without_secrets(endpoint), shown);
        }
    }
}
