//! `everfold config example`, `everfold config check`

use std::io::Write;

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
    #[command(after_help = "Example:\n  everfold config example > everfold.toml")]
    Example,
    /// Check the settings that a server would have here, from file and environment; exit with 1 if they are wrong.
    #[command(after_help = "Example:\n  everfold config check --config everfold.toml")]
    Check(Settings),
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Example => std::io::stdout().write_all(EXAMPLE.as_bytes())?,
        Command::Check(settings) => {
            let config = settings.load(Vec::new())?;
            writeln!(std::io::stdout(), "the settings of {} are good", config.server_name)?;
        }
    }
    Ok(())
}
