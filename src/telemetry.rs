//! What the process tells about itself: log lines on standard error, with the request that each belongs to.

use std::io::IsTerminal;

use schemas::{Lsn, RecordId};
use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Format, Telemetry};

/// Why nothing can be logged.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter doesn't parse.
    #[error("telemetry.filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The process logs already.
    #[error(transparent)]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

/// Begins to log, panics included.
///
/// # Errors
/// When the filter is wrong, or something logs already.
pub fn init(config: &Telemetry) -> Result<(), TelemetryError> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        Format::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(EnvFilter::try_new(&config.filter)?)).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let payload = panic.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let why = text.unwrap_or("no message");
        tracing::error!(place, backtrace = %std::backtrace::Backtrace::capture(), "panic: {why}");
    }));
    Ok(())
}

/// The span of a request, with room for what [`wrote`] adds.
#[must_use]
pub fn request_span(method: &http::Method, route: &str) -> tracing::Span {
    tracing::info_span!("request", %method, route, record = tracing::field::Empty, lsn = tracing::field::Empty)
}

/// Notes on a request's span what it appended: every line of the request shows it from here on.
pub fn wrote(span: &tracing::Span, record: RecordId, lsn: Lsn) {
    span.record("record", tracing::field::display(record));
    span.record("lsn", lsn.0);
}
