//! What commands print: text for people, an object of JSON a line for machines, and bars on long work while somebody
//! looks.

use std::{
    cell::Cell,
    io::{BufWriter, IsTerminal, StdoutLock, Write},
};

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

/// No step of any work goes over so many records; a gap that is as wide stands where an epoch begins.
const GAP: u64 = 1 << 32;

/// A bar for what goes from record to record: is told where it is, and where it will end. Gaps are no work; until they are
/// passed, nobody knows how much is to be done.
pub(super) fn report(bar: &ProgressBar) -> impl Fn(Lsn, Lsn) {
    let (last, passed) = (Cell::new(0), Cell::new(0));
    move |Lsn(at), Lsn(end)| {
        let step = at.checked_sub(last.replace(at));
        // Without a step, the work begins anew.
        passed.set(step.map_or(0, |step| passed.get() + if step >= GAP { step } else { 0 }));
        bar.set_position(at.saturating_sub(passed.get()));
        match end.saturating_sub(at) {
            GAP.. => bar.unset_length(),
            _ => bar.set_length(end.saturating_sub(passed.get())),
        }
    }
}

/// Milliseconds since the Unix epoch as people read them.
pub(super) fn time(ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| format!("{ms}ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_counts_records_and_no_gaps() {
        let bar = ProgressBar::hidden();
        let report = report(&bar);
        let shown = |at: u64, end: u64| {
            report(Lsn(at), Lsn(end));
            (bar.position(), bar.length())
        };
        let epoch = (1 << 40) + 77;
        assert_eq!(shown(500, 1_000), (500, Some(1_000)));
        assert_eq!(shown(1_000, epoch + 500), (1_000, None));
        let (at, Some(of)) = shown(epoch + 100, epoch + 500) else { panic!("it is near the end") };
        assert_eq!(of - at, 400);
        assert!(at <= 1_100, "{at}");
        assert_eq!(shown(epoch + 500, epoch + 500), (at + 400, Some(of)));
        assert_eq!(shown(10, 1_000), (10, Some(1_000)), "it begins anew");
    }
}
