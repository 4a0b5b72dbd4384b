//! The command line. Exit codes: 0 it is done, 1 it failed, 2 it was asked wrongly.

mod config;
mod serve;
mod user;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

/// A Matrix homeserver whose only source of truth is an append-only log.
#[derive(Debug, Parser)]
#[command(name = "everfold", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  everfold serve                                    serve localhost on 127.0.0.1:8008, with data in ./data
  everfold serve --server-name example.org --data /var/lib/everfold --registration token
  EVERFOLD_RATE_LIMITS=off everfold serve           every setting is in the environment, too
  everfold user create alice --admin                make the first administrator of a server that runs
  everfold config example > everfold.toml           all settings, each with its default and its reason";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Args),
    /// Register accounts and change them.
    User(user::Args),
    /// Show and check settings.
    Config(config::Args),
}

/// Which settings a command works with.
#[derive(Debug, clap::Args)]
struct Settings {
    /// A TOML file with settings; `everfold config example` prints one.
    #[arg(long, value_name = "FILE", env = "EVERFOLD_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// The folder of the log and the read models.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
}

impl Settings {
    /// Loads them, with more flags on top.
    fn load(&self, mut flags: Vec<(&'static str, String)>) -> anyhow::Result<crate::config::Config> {
        if let Some(data) = &self.data {
            flags.push(("data", data.display().to_string()));
        }
        Ok(crate::config::from_environment(self.config.as_deref(), &flags)?)
    }
}

/// Does what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::User(args) => user::run(&args),
        Command::Config(args) => config::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("everfold: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_in_the_readme() {
        Cli::command().debug_assert();
        let readme = include_str!("../../README.md");
        for command in Cli::command().get_subcommands() {
            let name = format!("everfold {}", command.get_name());
            assert!(readme.contains(&name), "the README doesn't mention `{name}`");
            for below in command.get_subcommands() {
                let name = format!("{name} {}", below.get_name());
                assert!(readme.contains(&name), "the README doesn't mention `{name}`");
            }
        }
    }
}
