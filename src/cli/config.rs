//! `everfold config example`, `everfold config check`

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::Settings;
use crate::config::EXAMPLE;

/// What to do with settings.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  everfold config example > everfold.toml\n  everfold config check --config everfold.toml"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print every setting with its default and its reason, as a TOML file.
    #[command(after_help = "Example:\n  everfold config example --data /var/lib/everfold > everfold.toml")]
    Example {
        /// The folder of the log and the read models, instead of the default.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
    },
    /// Check the settings that a server would have here, from file and environment; exit with 1 if they are wrong.
    #[command(after_help = "Example:\n  everfold config check --config everfold.toml")]
    Check(Settings),
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Example { data } => std::io::stdout().write_all(example(data.as_deref())?.as_bytes())?,
        Command::Check(settings) => {
            let config = settings.load(Vec::new())?;
            writeln!(std::io::stdout(), "the settings of {} are good", config.server_name)?;
        }
    }
    Ok(())
}

/// The example, for a data folder.
fn example(data: Option<&Path>) -> anyhow::Result<String> {
    let Some(data) = data else { return Ok(EXAMPLE.to_owned()) };
    let data = data.to_str().context("the settings hold text, and this folder's name is none")?;
    Ok(EXAMPLE.replacen("\ndata = \"data\"\n", &format!("\ndata = {}\n", toml::Value::from(data)), 1))
}
