//! What Prometheus learns from the ingress.

use prometheus::{HistogramVec, IntCounterVec, Registry};
use zentra_shared::telemetry::{counter, seconds};

#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) accepted: IntCounterVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) seconds: HistogramVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        Ok(Self {
            accepted: counter(
                registry,
                "zentra_ingress_accepted_total",
                "Callbacks verified, queued and confirmed (2xx).",
                &["source"],
            )?,
            refused: counter(
                registry,
                "zentra_ingress_refused_total",
                "Callbacks refused, by reason (4xx and 503).",
                &["source", "reason"],
            )?,
            seconds: seconds(
                registry,
                "zentra_ingress_request_seconds",
                "From the request's headers to its answer.",
                &["source"],
            )?,
        })
    }
}
