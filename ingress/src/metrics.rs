//! What Prometheus learns from the ingress.

use prometheus::{HistogramVec, IntCounterVec, Registry};
use zentra_shared::telemetry::{counter, seconds};
use zentra_shared::verify::Source;

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) accepted: IntCounterVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) refused_kept: IntCounterVec,
    pub(crate) refused_dropped: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            accepted: counter(
                registry,
                "zentra_ingress_accepted_total",
                "Callbacks verified, queued and confirmed (2xx), by the key that verified them.",
                &["source", "key"],
            )?,
            refused: counter(
                registry,
                "zentra_ingress_refused_total",
                "Callbacks refused, by reason (4xx and 503).",
                &["source", "reason"],
            )?,
            refused_kept: counter(
                registry,
                "zentra_ingress_refused_kept_total",
                "Refused callbacks kept for zentra refused.",
                &["source"],
            )?,
            refused_dropped: counter(
                registry,
                "zentra_ingress_refused_dropped_total",
                "Refused callbacks not kept: over the source's rate, too many waiting, or \
                 not queued.",
                &["source", "why"],
            )?,
            seconds: seconds(
                registry,
                "zentra_ingress_request_seconds",
                "From the request's headers to its answer.",
                &["source"],
            )?,
        })
    }

    /// Each key's counter is there from the start, so that its first increase shows, and a
    /// key that is never used can be seen to be so.
    pub(crate) fn know(&self, sources: &[Source]) {
        for source in sources {
            for key in &source.secrets {
                self.accepted.with_label_values(&[&source.name, &key.name]);
            }
        }
    }
}
