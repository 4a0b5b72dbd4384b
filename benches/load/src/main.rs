//! A load driver for any Matrix homeserver: it registers users, lets them work through the client-server API, and reports
//! rates, latencies and the server's CPU time per call.

mod cli;
mod client;
mod cpu;
mod measure;
mod report;
mod scenarios;
mod setup;

use std::fs::File;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use crate::cli::{Cli, Command, RunArgs, Sizes};
use crate::client::Server;
use crate::cpu::ServerProcesses;
use crate::measure::Meter;
use crate::scenarios::Scenario;
use crate::setup::Env;

// One thread: the driver leaves the other cores to the server.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Some(Command::Compare { a, b }) => report::compare(a, b).map(|table| {
            print!("{table}");
            ExitCode::SUCCESS
        }),
        None => run(&cli.run).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("load: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs the scenarios chosen; one that fails leaves the others to run, and the exit code tells.
async fn run(args: &RunArgs) -> Result<ExitCode> {
    let server = Server::new(&args.url, args.registration())?;
    server.check().await?;
    let mut json = match &args.json {
        Some(path) => Some(File::create(path).with_context(|| format!("create {}", path.display()))?),
        None => None,
    };
    let meter = Meter {
        server: args.label.clone().unwrap_or_else(|| args.url.join(" ")),
        processes: ServerProcesses::new(args.pid.clone()),
    };
    meter.processes.sample().context("read the server's CPU time")?;
    let env = Env::new(server, Sizes::new(&args.sizes, args.quick), meter);
    let mut failed = false;
    println!("{}", report::heading());
    for scenario in Scenario::chosen(&args.scenario) {
        eprintln!("{}", scenario.name());
        match scenario.run(&env).await {
            Ok(outcomes) => {
                for outcome in &outcomes {
                    failed |= outcome.errors > 0;
                    println!("{}", report::line(outcome));
                    if let Some(json) = &mut json {
                        report::append(json, outcome)?;
                    }
                }
            }
            Err(error) => {
                failed = true;
                eprintln!("{} failed: {error:#}", scenario.name());
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
