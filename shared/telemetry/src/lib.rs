//! What operators and Prometheus see of a running program: logs, metrics, health.

pub mod admin;
mod lines;
pub mod otlp;
pub mod places;
pub mod shutdown;
pub mod trace;

use std::error::Error;
use std::fmt::{Debug, Display};
use std::fs::File;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Format;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use lines::WithTrace;

/// Log lines go to stderr: as text, or as JSON with `ZENTRA_LOG_FORMAT=json`.
/// `ZENTRA_LOG` filters them; without it, `default` does (`info`, `warn`). Lines of the AMQP library
/// are shown only if the filter names `lapin`. Colors are used on a terminal, unless `NO_COLOR` is set
/// (<https://no-color.org>).
///
/// Never logged: bodies, secrets, signatures. So whatever the filter says, the libraries'
/// lines below `info` are left out: they show whole frames.
pub fn init_logs(default: &str) {
    init_logs_to(default, std::io::stderr, std::io::stderr().is_terminal(), None);
}

/// The same, into a file. What comes from `target` goes to `sink` too, one line for each.
pub fn init_logs_in(
    default: &str,
    file: File,
    target: &'static str,
    sink: impl Fn(String) + Send + Sync + 'static,
) {
    let watch = Watch { target, sink: Box::new(sink) };
    init_logs_to(default, Arc::new(file), false, Some(watch));
}

/// Passes on the log lines of one target.
struct Watch {
    target: &'static str,
    sink: Box<dyn Fn(String) + Send + Sync>,
}

impl<S: Subscriber> Layer<S> for Watch {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == self.target {
            let mut line = Fields::default();
            event.record(&mut line);
            (self.sink)(line.message + &line.others);
        }
    }
}

/// The fields of a log line, as text.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others += &format!(" {name}={value:?}"),
        }
    }
}

fn init_logs_to<W>(default: &str, writer: W, is_terminal: bool, watch: Option<Watch>)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // The library logs each connection loss as an error of its own; we log it once.
    let with = |text: &str| EnvFilter::try_new(format!("lapin=off,{text}")).ok();
    let asked = std::env::var("ZENTRA_LOG").ok();
    let filter = asked.and_then(|text| with(&text)).or_else(|| with(default)).unwrap_or_default();
    let safe = filter_fn(|of| of.target().starts_with("zentra") || *of.level() <= Level::INFO);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match std::env::var("ZENTRA_LOG_FORMAT").is_ok_and(|format| format == "json") {
        true => {
            let with = |format| WithTrace { format, add: lines::json };
            lines.json().with_ansi(false).map_event_format(with).boxed()
        }
        false => {
            let ansi = is_terminal && colors();
            let with =
                |format: Format| WithTrace { format: format.with_ansi(ansi), add: lines::text };
            lines.with_ansi(ansi).map_event_format(with).boxed()
        }
    };
    let all = tracing_subscriber::registry().with(lines.with_filter(safe)).with(watch);
    all.with(filter).init();
}

/// Ends a program: prints why it failed, without a backtrace.
pub fn exit<E: Display>(done: Result<(), E>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With its causes, on one line.
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether colors are allowed: unless `NO_COLOR` is set and not empty (<https://no-color.org>).
pub fn colors() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|text| text.is_empty())
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

/// The buckets of what takes time here.
pub const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// A registered gauge.
pub fn gauge(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    let gauge = IntGaugeVec::new(prometheus::opts!(name, help), labels)?;
    registry.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

/// Shows which build this is.
pub fn build_info(registry: &Registry, program: &str) -> prometheus::Result<()> {
    let help = "Always 1. The labels describe this build.";
    let gauge = gauge(registry, "zentra_build_info", help, &["program", "version"])?;
    gauge.with_label_values(&[program, env!("CARGO_PKG_VERSION")]).set(1);
    Ok(())
}

/// A registered histogram with buckets of its own.
pub fn histogram(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> prometheus::Result<HistogramVec> {
    let opts = prometheus::histogram_opts!(name, help, buckets.to_vec());
    let histogram = HistogramVec::new(opts, labels)?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}

/// A registered histogram of seconds, from 0.5 ms to 60 s.
pub fn seconds(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<HistogramVec> {
    histogram(registry, name, help, labels, &SECONDS)
}

/// Adds one to a gauge while it lives.
pub struct GaugeGuard(IntGauge);

impl GaugeGuard {
    /// One more, until this is dropped.
    pub fn more(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An error and its causes, ten at most, also those that an I/O error or a shared error hides in
/// itself.
pub fn chain<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    fn inner<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
        if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
            return Some(&**shared);
        }
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(hidden) => Some(hidden),
            None => error.source(),
        }
    }
    std::iter::successors(Some(error), |error| inner(*error)).take(10)
}

/// An error with its causes: the outermost alone often says little.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text
}
