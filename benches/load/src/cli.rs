//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::client::Registration;
use crate::measure::Limits;
use crate::scenarios::Scenario;

const EXAMPLES: &str = "\
Examples:
  Everfold, with the CPU time of its process:
    load --url http://127.0.0.1:8008 --pid $(pidof everfold) --label everfold --json everfold.json
  Synapse, with PostgreSQL's CPU time in its figures:
    load --url http://127.0.0.1:18008 --pid $SYNAPSE_PID --pid $POSTGRES_PID --label synapse --json synapse.json
  A first look, and two scenarios alone:
    load --quick
    load --scenario send-hot,delivery
  Sync of users in 200 and in 5,000 rooms, and state of a room with 10,000 members:
    load --scenario sync,state --rooms 200,5000 --members 10000
  A server of two nodes:
    load --url http://127.0.0.1:8008 --url http://127.0.0.1:8009 --scenario reads,contended
  Ratios, as a Markdown table:
    load compare everfold.json synapse.json

The server's rate limits must be off: a call refused with M_LIMIT_EXCEEDED counts as an error and is not tried again,
and one refused during set-up ends its scenario. The accounts and rooms made stay on the server.
CPU time is that of the processes named with --pid and of all their descendants, until the server is quiet again after
the last answer, so that work put off past an answer counts too. Set-up is not measured.";

/// Puts load on a Matrix homeserver through the client-server API and reports what it costs.
#[derive(Debug, Parser)]
#[command(name = "load", after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Another thing to do than to run scenarios.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Things to do with figures.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints the ratios of two files as a Markdown table; above 1 the first is ahead.
    Compare {
        /// Figures written with --json.
        a: PathBuf,
        /// Figures to compare them with.
        b: PathBuf,
    },
}

/// Which server, which scenarios, how large.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Base URL of the homeserver. Repeat it for a server of several nodes, which then take the calls in turn.
    #[arg(long, default_value = "http://127.0.0.1:8008")]
    pub url: Vec<String>,
    /// A server process; it counts with its descendants. Repeat it for a database.
    #[arg(long)]
    pub pid: Vec<u32>,
    /// Name of the server in the figures; by default its URL.
    #[arg(long)]
    pub label: Option<String>,
    /// Register at /_synapse/admin/v1/register with this secret instead of openly.
    #[arg(long, conflicts_with = "registration_token")]
    pub shared_secret: Option<String>,
    /// Register with this token.
    #[arg(long)]
    pub registration_token: Option<String>,
    /// What to measure, separated by commas.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "all")]
    pub scenario: Vec<Scenario>,
    /// Write the figures to this file, one JSON object a line, each as soon as it is there.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Much smaller sizes: does it work at all?
    #[arg(long)]
    pub quick: bool,
    /// Sizes.
    #[command(flatten)]
    pub sizes: SizeArgs,
}

impl RunArgs {
    /// How to make accounts.
    pub fn registration(&self) -> Registration {
        match (&self.shared_secret, &self.registration_token) {
            (Some(secret), _) => Registration::SharedSecret(secret.clone()),
            (None, Some(token)) => Registration::Token(token.clone()),
            (None, None) => Registration::Open,
        }
    }
}

/// Sizes given on the command line.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sizes")]
pub struct SizeArgs {
    /// Seconds of each phase that is not a fixed number of calls (8; quick: 2)
    #[arg(long)]
    seconds: Option<f64>,
    /// Calls after which such a phase ends early; 50,000 if it is not given
    #[arg(long)]
    calls: Option<usize>,
    /// Users sending at once (32; quick: 8)
    #[arg(long)]
    senders: Option<usize>,
    /// Joins and createRooms at once (8; quick: 4)
    #[arg(long)]
    at_once: Option<usize>,
    /// Rooms of the user who syncs, separated by commas for several such users (200; quick: 20)
    #[arg(long, value_delimiter = ',')]
    rooms: Vec<usize>,
    /// Members of the large room (500; quick: 20)
    #[arg(long)]
    members: Option<usize>,
    /// Users who join the large room (100; quick: 8)
    #[arg(long)]
    joiners: Option<usize>,
    /// Joins to one new room (300; quick: 20)
    #[arg(long)]
    joins: Option<usize>,
    /// Messages to page backwards through (2000; quick: 200)
    #[arg(long)]
    history: Option<usize>,
    /// Messages sent to a member who waits (100; quick: 20)
    #[arg(long)]
    deliveries: Option<usize>,
    /// Users of the mixed load (50; quick: 10)
    #[arg(long)]
    mixed_users: Option<usize>,
    /// Room version of all rooms made (the server's default)
    #[arg(long)]
    room_version: Option<String>,
}

/// Sizes in force.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// Ends phases without a fixed number of calls.
    pub limits: Limits,
    /// Users sending at once.
    pub senders: usize,
    /// Joins and createRooms at once.
    pub at_once: usize,
    /// Rooms of each user who syncs.
    pub rooms: Vec<usize>,
    /// Members of the large room.
    pub members: usize,
    /// Users who join the large room.
    pub joiners: usize,
    /// Joins to one new room.
    pub joins: usize,
    /// Messages to page backwards through.
    pub history: usize,
    /// Messages sent to a member who waits.
    pub deliveries: usize,
    /// Users of the mixed load.
    pub mixed_users: usize,
    /// Room version of all rooms made, if not the server's default.
    pub room_version: Option<String>,
}

impl Sizes {
    /// The sizes given, completed by those of a full or quick run.
    pub fn new(args: &SizeArgs, quick: bool) -> Self {
        let or =
            |given: Option<usize>, full: usize, small: usize| given.unwrap_or(if quick { small } else { full }).max(1);
        let rooms = if args.rooms.is_empty() { vec![or(None, 200, 20)] } else { args.rooms.clone() };
        let seconds = args.seconds.unwrap_or(if quick { 2.0 } else { 8.0 });
        Self {
            limits: Limits {
                calls: or(args.calls, 50_000, 50_000),
                at_least: 3,
                time: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            },
            senders: or(args.senders, 32, 8),
            at_once: or(args.at_once, 8, 4),
            rooms,
            members: or(args.members, 500, 20),
            joiners: or(args.joiners, 100, 8),
            joins: or(args.joins, 300, 20),
            history: or(args.history, 2000, 200),
            deliveries: or(args.deliveries, 100, 20),
            mixed_users: or(args.mixed_users, 50, 10),
            room_version: args.room_version.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn given_sizes_override_those_of_a_quick_run() {
        let cli = Cli::parse_from(["load", "--quick", "--rooms", "200,5000", "--senders", "3"]);
        let sizes = Sizes::new(&cli.run.sizes, cli.run.quick);
        assert_eq!((sizes.rooms, sizes.senders, sizes.members), (vec![200, 5000], 3, 20));
    }
}
