//! What commands print: text for people, an object of JSON a line for machines, and bars on long work while somebody
//! looks.

use std::io::{BufWriter, IsTerminal, StdoutLock, Write};

use indicatif::{ProgressBar, ProgressStyle};
use schemas::Lsn;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How results are printed.
#[derive(Debug, clap::Args)]
pub(super) struct Format {
    /// Print JSON, an object a line, as is done anyway where standard output is no terminal.
    #[arg(long, global = true)]
    json: bool,
}

impl Format {
    pub fn output(&self) -> Output {
        Output::new(self.json || !std::io::stdout().is_terminal())
    }
}

/// Standard output.
pub(super) struct Output {
    json: bool,
    out: BufWriter<StdoutLock<'static>>,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, out: BufWriter::new(std::io::stdout().lock()) }
    }

    /// Whether a machine reads it.
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a result.
    pub fn print<T: Serialize>(&mut self, result: &T, text: impl FnOnce(&T) -> String) -> std::io::Result<()> {
        if self.json {
            serde_json::to_writer(&mut self.out, result)?;
            writeln!(self.out)
        } else {
            writeln!(self.out, "{}", text(result))
        }
    }

    /// Lets whoever reads see it now.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// A bar on standard error, if that is a terminal: how much of something is done.
pub(super) fn bar(what: &'static str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
    let bar = ProgressBar::new(total).with_message(what);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A bar for what goes from record to record.
pub(super) fn report(bar: &ProgressBar) -> impl Fn(Lsn, Lsn) {
    |at, end| {
        bar.set_length(end.0);
        bar.set_position(at.0);
    }
}

/// Milliseconds since the Unix epoch as people read them.
pub(super) fn time(ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms}ms"))
}
