//! What operators and Prometheus see of a running program: logs, metrics, health.

pub mod admin;

use std::io::IsTerminal;

use prometheus::{HistogramVec, IntCounterVec, Registry};
use tracing_subscriber::EnvFilter;

/// Log lines go to stderr: as text, or as JSON with `ZENTRA_LOG_FORMAT=json`.
/// `ZENTRA_LOG` filters them; without it, `default` does (`info`, `warn`).
///
/// Never logged: bodies, secrets, signatures.
pub fn init_logs(default: &str) {
    let filter = EnvFilter::try_from_env("ZENTRA_LOG")
        // The library logs each connection loss as an error of its own; we log it once.
        .unwrap_or_else(|_| EnvFilter::new(format!("{default},lapin=off")));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if std::env::var("ZENTRA_LOG_FORMAT").is_ok_and(|format| format == "json") {
        logs.json().init();
    } else {
        logs.init();
    }
}

/// A registered counter. Fails only if the name is taken or no metric name.
pub fn counter(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntCounterVec> {
    let counter = IntCounterVec::new(prometheus::opts!(name, help), labels)?;
    registry.register(Box::new(counter.clone()))?;
    Ok(counter)
}

/// A registered histogram of seconds, from 1 ms to 60 s.
pub fn seconds(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<HistogramVec> {
    let buckets = vec![
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ];
    let histogram = HistogramVec::new(prometheus::histogram_opts!(name, help, buckets), labels)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}
