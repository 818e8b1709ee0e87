//! Log lines carry the trace and the span of their task, as `trace_id` and `span_id`
//! (<https://opentelemetry.io/docs/specs/otel/compatibility/logging_trace_context/>).

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::trace;

/// Adds trace and span to each line of a format.
pub(crate) struct WithTrace<F> {
    pub(crate) format: F,
    /// How they are added to a line.
    pub(crate) add: fn(&mut String, trace: &str, span: &str),
}

impl<S, N, F> FormatEvent<S, N> for WithTrace<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(trace) = trace::current() else {
            return self.format.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        (self.add)(&mut line, &trace.id(), &trace.span_id());
        writer.write_str(&line)
    }
}

/// As more fields at the end of the line.
pub(crate) fn text(line: &mut String, trace: &str, span: &str) {
    line.truncate(line.trim_end_matches('\n').len());
    *line += &format!(" trace_id={trace} span_id={span}\n");
}

/// As more members of the line's object.
pub(crate) fn json(line: &mut String, trace: &str, span: &str) {
    if let Some(end) = line.rfind('}') {
        line.insert_str(end, &format!(r#","trace_id":"{trace}","span_id":"{span}""#));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_their_form() {
        let mut line = "INFO zentra: delivered key=a\n".to_owned();
        text(&mut line, "1", "2");
        assert_eq!(line, "INFO zentra: delivered key=a trace_id=1 span_id=2\n");
        let mut line = "{\"level\":\"INFO\",\"fields\":{\"message\":\"}\"}}\n".to_owned();
        json(&mut line, "1", "2");
        let end = "\"fields\":{\"message\":\"}\"},\"trace_id\":\"1\",\"span_id\":\"2\"}\n";
        assert!(line.ends_with(end), "{line}");
    }
}
