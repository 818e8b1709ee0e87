//! Metrics of the ingress. Labels have only configured names, so that nobody can create new ones.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use x509_cert::Certificate;
use zentra_core::event::Envelope;
use zentra_core::source::Source;
use zentra_telemetry::{counter, gauge, histogram, seconds};

/// Source label of unknown sources.
pub(crate) const UNKNOWN: &str = "unknown";

/// Source label of shared histograms.
const ALL: &str = "all";

/// From a callback's own time to its receipt: from on time to after days of retries.
const DELAYS: [f64; 13] =
    [0.1, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 3600.0, 21_600.0, 86_400.0, 259_200.0];
const SIZES: [f64; 9] =
    [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
const VERIFY: [f64; 9] =
    [0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.001, 0.005, 0.025, 0.1];

#[derive(Clone)]
pub(crate) struct Metrics {
    accepted: IntCounterVec,
    refused: IntCounterVec,
    seconds: HistogramVec,
    body_bytes: HistogramVec,
    verify_seconds: HistogramVec,
    provider_delay: HistogramVec,
    last_accepted: IntGaugeVec,
    handshakes: IntCounterVec,
    refused_kept: IntCounterVec,
    refused_dropped: IntCounterVec,
    pub(crate) connections: IntGauge,
    pub(crate) bodies: IntGauge,
    pub(crate) in_flight: IntGauge,
    certificate_ends: IntGauge,
    /// Whether each source has histograms of its own.
    by_source: bool,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, by_source: bool) -> prometheus::Result<Self> {
        let count = |name, help, labels: &[&str]| counter(registry, name, help, labels);
        let source: &[&str] = &["source"];
        let alone = |name, help| -> prometheus::Result<IntGauge> {
            Ok(gauge(registry, name, help, &[])?.with_label_values::<&str>(&[]))
        };
        Ok(Self {
            accepted: count(
                "zentra_ingress_accepted_total",
                "Callbacks verified, queued and confirmed (2xx), by the key that verified them.",
                &["source", "key"],
            )?,
            refused: count(
                "zentra_ingress_refused_total",
                "Callbacks refused, by reason (4xx and 503).",
                &["source", "reason"],
            )?,
            seconds: seconds(
                registry,
                "zentra_ingress_request_seconds",
                "Time from a request's headers to its response.",
                source,
            )?,
            body_bytes: histogram(
                registry,
                "zentra_ingress_body_bytes",
                "Size of bodies that were read.",
                source,
                &SIZES,
            )?,
            verify_seconds: histogram(
                registry,
                "zentra_ingress_verify_seconds",
                "Time to verify one callback, check its freshness and identify its events.",
                source,
                &VERIFY,
            )?,
            provider_delay: histogram(
                registry,
                "zentra_ingress_provider_delay_seconds",
                "Time from the provider's signed time to the receipt.",
                source,
                &DELAYS,
            )?,
            last_accepted: gauge(
                registry,
                "zentra_ingress_last_accepted_timestamp_seconds",
                "Time of the last accepted callback; 0 if none since the start.",
                source,
            )?,
            handshakes: count(
                "zentra_ingress_handshakes_total",
                "Answered requests by which a provider validates the endpoint.",
                source,
            )?,
            refused_kept: count(
                "zentra_ingress_refused_kept_total",
                "Refused callbacks that were stored for zentra refused.",
                source,
            )?,
            refused_dropped: count(
                "zentra_ingress_refused_dropped_total",
                "Refused callbacks that were not stored: over the source's rate or share, too many waiting, or \
                 not queued.",
                &["source", "reason"],
            )?,
            connections: alone("zentra_ingress_connections", "Open connections.")?,
            bodies: alone(
                "zentra_ingress_bodies",
                "Requests whose body has not arrived completely.",
            )?,
            in_flight: alone(
                "zentra_ingress_in_flight",
                "Callbacks that were read and not answered yet.",
            )?,
            certificate_ends: alone(
                "zentra_ingress_certificate_expiry_timestamp_seconds",
                "End of the validity of the certificate that is served; 0 without one.",
            )?,
            by_source,
        })
    }

    /// The certificate chain (PEM) that is served from now on. The first one is the ingress's own.
    pub(crate) fn serves(&self, chain: Option<&[u8]>) {
        let chain = chain.and_then(|pem| Certificate::load_pem_chain(pem).ok()).unwrap_or_default();
        let ends =
            chain.first().map(|own| own.tbs_certificate.validity.not_after.to_unix_duration());
        let ends = ends.and_then(|ends| i64::try_from(ends.as_secs()).ok());
        self.certificate_ends.set(ends.unwrap_or_default());
    }

    /// Creates all counters at the start, so that a first increase and an unused key are visible.
    pub(crate) fn know(&self, sources: &[Source]) {
        for source in sources {
            let name = source.name.as_str();
            for key in &source.endpoint.secrets {
                self.accepted.with_label_values(&[name, &key.name]);
            }
            self.last_accepted.with_label_values(&[name]);
            self.handshakes.with_label_values(&[name]);
            self.refused_kept.with_label_values(&[name]);
            let name = self.measured(name);
            self.body_bytes.with_label_values(&[name]);
            self.verify_seconds.with_label_values(&[name]);
            if source.endpoint.scheme.timestamp.is_some() {
                self.provider_delay.with_label_values(&[name]);
            }
        }
    }

    /// Source label for histograms.
    fn measured<'a>(&self, source: &'a str) -> &'a str {
        if self.by_source { source } else { ALL }
    }

    pub(crate) fn read(&self, source: &str, bytes: usize) {
        let source = self.measured(source);
        self.body_bytes.with_label_values(&[source]).observe(bytes as f64);
    }

    pub(crate) fn verified(&self, source: &str, took: Duration) {
        let source = self.measured(source);
        self.verify_seconds.with_label_values(&[source]).observe(took.as_secs_f64());
    }

    pub(crate) fn accepted(&self, envelope: &Envelope) {
        let source = envelope.source.as_str();
        self.accepted.with_label_values(&[source, &envelope.verified_with]).inc();
        let at = i64::try_from(envelope.received_at.secs()).unwrap_or(i64::MAX);
        self.last_accepted.with_label_values(&[source]).set(at);
        if let Some(signed) = envelope.provider_time {
            let delay = envelope.received_at.since(signed).as_secs_f64();
            self.provider_delay.with_label_values(&[self.measured(source)]).observe(delay);
        }
    }

    pub(crate) fn shook_hands(&self, source: &str) {
        self.handshakes.with_label_values(&[source]).inc();
    }

    pub(crate) fn answered(&self, source: &str, took: Duration) {
        let source = self.measured(source);
        self.seconds.with_label_values(&[source]).observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, source: &str, reason: &str) {
        self.refused.with_label_values(&[source, reason]).inc();
    }

    pub(crate) fn kept(&self, source: &str) {
        self.refused_kept.with_label_values(&[source]).inc();
    }

    pub(crate) fn dropped(&self, source: &str, why: &str) {
        self.refused_dropped.with_label_values(&[source, why]).inc();
    }
}
