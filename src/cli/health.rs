//! `everfold health`

use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::StatusCode;
use serde_json::Value;

use super::{Settings, output::Format};

/// Which server to ask.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold health                                   the server that runs on ./data
  everfold health --url http://127.0.0.1:8008
  until everfold health --data /var/lib/everfold; do sleep 1; done

It exits with 0 if the server is ready: it has folded what is on its log, and no other node is in its way. It exits with
1 if it is not, or doesn't answer.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    format: Format,
    /// Where the server is, if not where its data folder says.
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// How long to wait for its answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    timeout: u64,
}

impl Args {
    fn url(&self) -> anyhow::Result<String> {
        let url = match &self.url {
            Some(url) => url.clone(),
            None => {
                let file = self.settings.load(Vec::new())?.address_file();
                let url = std::fs::read_to_string(&file);
                url.with_context(|| format!("where the server is, in {}: does it run?", file.display()))?
            }
        };
        Ok(url.trim().trim_end_matches('/').to_owned())
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let url = args.url()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, health) = runtime.block_on(async {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(args.timeout)).build()?;
        let reply = client.get(format!("{url}/health/ready")).send().await;
        let reply = reply.with_context(|| format!("no server answers at {url}"))?;
        let status = reply.status();
        let health: Value = reply.json().await.with_context(|| format!("no Everfold answers at {url} ({status})"))?;
        anyhow::Ok((status, health))
    })?;
    if status == StatusCode::OK {
        let mut out = args.format.output();
        out.print(&health, |health| format!("ready: everything up to Lsn {} is folded", health["folded"]))?;
        return Ok(out.flush()?);
    }
    let why = ["stopped", "conflict"].into_iter().filter_map(|why| Some(format!("; {}", health[why].as_str()?)));
    bail!("not ready: folded up to Lsn {} of {}{}", health["folded"], health["tail"], why.collect::<String>())
}
