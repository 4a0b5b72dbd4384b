//! The command line. Exit codes: 0 it is done, 1 it failed or was refused, 2 it was asked wrongly, 3 the log is damaged.

mod config;
#[cfg(test)]
mod documented;
mod health;
mod log;
mod output;
mod project;
mod projections;
mod replay;
mod serve;
mod server;
mod snapshot;
mod user;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    config::Config,
    fold::{self, ReplayError},
    log::{ReadError, embedded::OpenError, kafka},
};

/// The exit code where a log is not what was appended.
const DAMAGED: u8 = 3;

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
  everfold log tail --follow                        who does what, as it happens
  everfold log verify                               is the log what was appended, to the last bit?
  everfold config example > everfold.toml           all settings, each with its default and its reason";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::Args),
    /// Fold the log for servers beside it: a projector alone, which serves no clients.
    Project(project::Args),
    /// Ask a running server whether everything on its log is folded.
    Health(health::Args),
    /// Read the log: where it ends, its records, and whether it is what was appended.
    Log(log::Args),
    /// Fold the log up to some moment into a new folder, for a server that shows what was then.
    Replay(replay::Args),
    /// List the read models, and fold them anew.
    Projections(projections::Args),
    /// Print a number for each read model that two folds of one log agree on.
    Digest(projections::DigestArgs),
    /// Make a snapshot of a server's data, or begin from one.
    Snapshot(snapshot::Args),
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
    fn load(&self, mut flags: Vec<(&'static str, String)>) -> anyhow::Result<Config> {
        if let Some(data) = &self.data {
            flags.push(("data", data.display().to_string()));
        }
        Ok(crate::config::from_environment(self.config.as_deref(), &flags)?)
    }

    /// A command line that does something with the same settings, as it can be typed: by the name under which this
    /// program was started.
    fn command(&self, what: &str, config: &Config) -> String {
        let program = std::env::args_os().next().unwrap_or_else(|| "everfold".into());
        let mut line = format!("{} {what} --data {}", quoted(program.as_ref()), quoted(&config.data));
        if let Some(file) = &self.config {
            line += &format!(" --config {}", quoted(file));
        }
        line
    }
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    let path = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%,=".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        return path.into_owned();
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// Does what the command line asks for.
#[must_use]
pub fn run() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(args) => serve::run(&args),
        Command::Project(args) => project::run(&args),
        Command::Health(args) => health::run(&args),
        Command::Log(args) => log::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Projections(args) => projections::run(&args),
        Command::Digest(args) => projections::digest(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::User(args) => user::run(&args),
        Command::Config(args) => config::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read has seen enough, as `head` does.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("everfold: {error:#}");
            if damage(&error).is_some() { DAMAGED.into() } else { ExitCode::FAILURE }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let kind = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<serde_json::Error>()) {
        (Some(error), _) => Some(error.kind()),
        (_, Some(error)) => error.io_error_kind(),
        _ => None,
    };
    kind == Some(io::ErrorKind::BrokenPipe)
}

/// The damage of the log that an error tells of, if it does.
fn damage(error: &anyhow::Error) -> Option<&ReadError> {
    let opened = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(OpenError::Read(read)), _) | (_, Some(kafka::OpenError::Read(read))) => Some(read),
        _ => None,
    };
    let read = match (error.downcast_ref(), opened, error.downcast_ref()) {
        (Some(read), _, _) | (_, Some(read), _) => read,
        (_, _, Some(ReplayError::Fold(fold::StartError::Log(read)))) => read,
        _ => return None,
    };
    matches!(read, ReadError::Damaged { .. } | ReadError::Record { .. }).then_some(read)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn paths_are_quoted_where_a_shell_would_split_them() {
        for (path, expected) in [
            ("target/debug/everfold", "target/debug/everfold"),
            ("/my data", "'/my data'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(path.as_ref()), expected);
        }
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command, path: &str) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example") && help.contains("  everfold"), "{path} --help has no example");
            for below in command.get_subcommands() {
                check(below, &format!("{path} {}", below.get_name()));
            }
        }
        for command in Cli::command().get_subcommands() {
            check(command, &format!("everfold {}", command.get_name()));
        }
    }

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
