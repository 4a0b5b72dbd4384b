//! Figures for people, for files, and side by side.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::measure::Outcome;

/// The heading of the human table.
pub fn heading() -> String {
    format!(
        "{:<26} {:>7} {:>6} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7} {:>7}",
        "scenario", "calls", "errors", "calls/s", "p50 ms", "p90 ms", "p99 ms", "CPU ms", "driver", "others"
    )
}

/// One line of the human table, with further lines for further figures.
pub fn line(outcome: &Outcome) -> String {
    let mut text = format!(
        "{:<26} {:>7} {:>6} {:>9} {:>9} {:>9} {:>9} {:>10} {:>7.2} {:>7}",
        outcome.scenario,
        outcome.calls,
        outcome.errors,
        outcome.per_second.map_or_else(|| "-".to_owned(), number),
        number(outcome.p50_ms),
        number(outcome.p90_ms),
        number(outcome.p99_ms),
        outcome.cpu_ms_per_call.map_or_else(|| "-".to_owned(), number),
        outcome.driver_cores,
        outcome.other_cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}")),
    );
    for (name, value) in &outcome.extra {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{:<26} {name}: {}", "", number(*value));
    }
    if outcome.limited > 0 {
        let _ = write!(text, "\n{:<26} refused by a rate limit: {}", "", outcome.limited);
    }
    if let Some(error) = &outcome.first_error {
        let _ = write!(text, "\n{:<26} first error: {error}", "");
    }
    text
}

/// Three digits or so.
fn number(value: f64) -> String {
    let digits = match value {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Appends a figure to a file of JSON lines.
pub fn append(file: &mut File, outcome: &Outcome) -> Result<()> {
    let mut line = serde_json::to_vec(outcome)?;
    line.push(b'\n');
    file.write_all(&line).context("write the figures")
}

/// Prints the ratios of two files.
pub fn compare(a: &Path, b: &Path) -> Result<String> {
    let (a, b) = (read(a)?, read(b)?);
    Ok(table(&a, &b))
}

fn read(path: &Path) -> Result<Vec<Outcome>> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let lines = text.lines().map(serde_json::from_str);
    let outcomes: Vec<Outcome> = lines
        .collect::<Result<_, _>>()
        .with_context(|| format!("{} holds no figures of this program", path.display()))?;
    ensure!(!outcomes.is_empty(), "{} is empty", path.display());
    Ok(outcomes)
}

/// A Markdown table with a row for every figure that both files have.
fn table(a: &[Outcome], b: &[Outcome]) -> String {
    let name = |outcomes: &[Outcome]| outcomes.first().map(|outcome| outcome.server.clone()).unwrap_or_default();
    let mut text = format!(
        "Ratios above 1: {} is ahead of {}.\n\n| scenario | figure | {} | {} | ratio |\n|---|---|--:|--:|--:|\n",
        name(a),
        name(b),
        name(a),
        name(b)
    );
    for one in a {
        let Some(other) = b.iter().find(|other| other.scenario == one.scenario) else {
            continue;
        };
        for (figure, one_value, other_value, more_is_better) in figures(one, other) {
            let ratio = if more_is_better { one_value / other_value } else { other_value / one_value };
            let (left, right) = (number(one_value), number(other_value));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "| {} | {figure} | {left} | {right} | {} |", one.scenario, times(ratio));
        }
        if one.errors + other.errors > 0 {
            let _ = writeln!(text, "| {} | errors | {} | {} | |", one.scenario, one.errors, other.errors);
        }
    }
    text
}

fn times(ratio: f64) -> String {
    if ratio.is_finite() { format!("{}x", number(ratio)) } else { "-".to_owned() }
}

/// The figures that two outcomes have in common, and whether more is better.
fn figures(one: &Outcome, other: &Outcome) -> Vec<(String, f64, f64, bool)> {
    let mut figures = Vec::new();
    if let Some((one, other)) = one.per_second.zip(other.per_second) {
        figures.push(("calls/s".to_owned(), one, other, true));
    }
    figures.push(("p50 ms".to_owned(), one.p50_ms, other.p50_ms, false));
    figures.push(("p99 ms".to_owned(), one.p99_ms, other.p99_ms, false));
    if let Some((one, other)) = one.cpu_ms_per_call.zip(other.cpu_ms_per_call) {
        figures.push(("CPU ms/call".to_owned(), one, other, false));
    }
    for (name, value) in &one.extra {
        if let Some(theirs) = other.extra.get(name) {
            let more_is_better = name.ends_with("_per_second") || name.starts_with("times_");
            figures.push((name.replace('_', " "), *value, *theirs, more_is_better));
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(server: &str, per_second: f64, cpu: Option<f64>) -> Outcome {
        Outcome {
            scenario: "send".to_owned(),
            server: server.to_owned(),
            calls: 10,
            errors: 0,
            limited: 0,
            first_error: None,
            seconds: 1.0,
            per_second: Some(per_second),
            p50_ms: 1000.0 / per_second,
            p90_ms: 1.0,
            p99_ms: 2.0,
            cpu_ms_per_call: cpu,
            other_cores: None,
            driver_cores: 0.1,
            extra: [("events_per_second".to_owned(), per_second)].into(),
        }
    }

    #[test]
    fn a_ratio_above_one_means_that_the_first_is_ahead() {
        let table = table(&[outcome("ours", 100.0, Some(1.0))], &[outcome("theirs", 10.0, Some(50.0))]);
        assert!(table.contains("| send | calls/s | 100 | 10.0 | 10.0x |"), "{table}");
        assert!(table.contains("| send | p50 ms | 10.0 | 100 | 10.0x |"), "{table}");
        assert!(table.contains("| send | CPU ms/call | 1.00 | 50.0 | 50.0x |"), "{table}");
        assert!(table.contains("| send | events per second | 100 | 10.0 | 10.0x |"), "{table}");
    }

    #[test]
    fn a_figure_that_one_side_lacks_has_no_row() {
        let table = table(&[outcome("ours", 100.0, None)], &[outcome("theirs", 10.0, Some(50.0))]);
        assert!(!table.contains("CPU"), "{table}");
    }

    #[test]
    fn figures_survive_the_file() {
        let before = outcome("ours", 100.0, None);
        let line = serde_json::to_string(&before).expect("JSON");
        let after: Outcome = serde_json::from_str(&line).expect("an outcome");
        assert_eq!(after.extra, before.extra);
        assert_eq!(after.cpu_ms_per_call, None);
    }
}
