//! `everfold user create`, `list`, `set-password`, `set-admin`: through the running server, with the shared secret that
//! its data folder or settings hold.

use std::io::{BufRead, Write};

use anyhow::{Context, bail};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use sha1::Sha1;

use super::Settings;
use crate::{
    clock::{Random, SystemRandom},
    config::Config,
};

/// What to do with accounts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold user create alice --admin                    the first administrator; a password is made up and printed
  everfold user create bob --password-stdin < secret
  everfold user list
  everfold user set-password alice --password-stdin < secret
  everfold user set-admin alice false

They need the server to run, and its shared secret: use the same --data or --config as for `everfold serve`.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    /// Where the server is, if not where its settings say.
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Register an account.
    Create {
        /// Its name: the localpart, or the whole user id.
        name: String,
        /// It administers the server.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: Password,
    },
    /// Print all accounts, as an object of JSON a line.
    List {
        /// Those that were deactivated, too.
        #[arg(long)]
        deactivated: bool,
    },
    /// Change a password, and log out all devices.
    SetPassword {
        /// Whose: the localpart, or the whole user id.
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Make somebody an administrator of the server, or no longer one.
    SetAdmin {
        /// Whom: the localpart, or the whole user id.
        name: String,
        /// true or false.
        #[arg(default_value_t = true, action = clap::ArgAction::Set)]
        admin: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Password {
    /// Read the password from the first line of standard input; without this, one is made up and printed.
    #[arg(long)]
    password_stdin: bool,
}

impl Password {
    fn get(&self) -> anyhow::Result<(String, bool)> {
        if !self.password_stdin {
            let random: &dyn Random = &SystemRandom;
            return Ok((random.alphanumeric(20), true));
        }
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        let password = line.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            bail!("standard input has no password");
        }
        Ok((password.to_owned(), false))
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let config = args.settings.load(Vec::new())?;
    let server = Server::find(&config, args.url.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(server.run(&args.command, &config))
}

/// The running server.
struct Server {
    http: reqwest::Client,
    url: String,
    secret: String,
}

impl Server {
    fn find(config: &Config, url: Option<&str>) -> anyhow::Result<Self> {
        let told = || std::fs::read_to_string(config.address_file()).ok().map(|url| url.trim().to_owned());
        let url = url.map(ToOwned::to_owned).or_else(told);
        let url = url.with_context(|| {
            format!("no server has run in {} yet: start it, or name its --url", config.data.display())
        })?;
        let secret = match &config.registration.shared_secret {
            Some(secret) => secret.clone(),
            None => {
                let file = config.shared_secret_file();
                std::fs::read_to_string(&file).with_context(|| format!("the shared secret in {}", file.display()))?
            }
        };
        Ok(Self { http: reqwest::Client::new(), url, secret: secret.trim().to_owned() })
    }

    async fn run(&self, command: &Command, config: &Config) -> anyhow::Result<()> {
        let id = |name: &str| {
            if name.starts_with('@') { name.to_owned() } else { format!("@{name}:{}", config.server_name) }
        };
        let mut out = std::io::stdout();
        match command {
            Command::Create { name, admin, password } => {
                let (password, made_up) = password.get()?;
                let user = self.create(name, &password, *admin).await?;
                writeln!(out, "{user}")?;
                if made_up {
                    writeln!(out, "password: {password}")?;
                }
            }
            Command::List { deactivated } => self.list(*deactivated, &mut out).await?,
            Command::SetPassword { name, password } => {
                let (password, made_up) = password.get()?;
                let request = self.request(Method::POST, &format!("v1/reset_password/{}", id(name)));
                self.ask(request.json(&json!({ "new_password": password }))).await?;
                if made_up {
                    writeln!(out, "password: {password}")?;
                }
            }
            Command::SetAdmin { name, admin } => {
                let request = self.request(Method::PUT, &format!("v1/users/{}/admin", id(name)));
                self.ask(request.json(&json!({ "admin": admin }))).await?;
            }
        }
        Ok(())
    }

    async fn create(&self, name: &str, password: &str, admin: bool) -> anyhow::Result<String> {
        let nonce = self.ask(self.request(Method::GET, "v1/register")).await?;
        let nonce = nonce["nonce"].as_str().context("the server gave no nonce")?;
        let mut mac = Hmac::<Sha1>::new_from_slice(self.secret.as_bytes())?;
        mac.update([nonce, name, password, if admin { "admin" } else { "notadmin" }].join("\0").as_bytes());
        let mac = hex::encode(mac.finalize().into_bytes());
        let body = json!({
            "nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac, "inhibit_login": true,
        });
        let made = self.ask(self.request(Method::POST, "v1/register").json(&body)).await?;
        Ok(made["user_id"].as_str().unwrap_or_default().to_owned())
    }

    async fn list(&self, deactivated: bool, out: &mut impl Write) -> anyhow::Result<()> {
        let mut from: Option<String> = None;
        loop {
            let mut query = vec![("limit", "1000".to_owned()), ("deactivated", deactivated.to_string())];
            query.extend(from.map(|from| ("from", from)));
            let query = form(&query);
            let page = self.ask(self.request(Method::GET, &format!("v2/users?{query}"))).await?;
            for user in page["users"].as_array().into_iter().flatten() {
                writeln!(out, "{user}")?;
            }
            match page["next_token"].as_str() {
                Some(next) => from = Some(next.to_owned()),
                None => return Ok(()),
            }
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}/_synapse/admin/{path}", self.url)).bearer_auth(&self.secret)
    }

    async fn ask(&self, request: RequestBuilder) -> anyhow::Result<Value> {
        let reply = request.send().await.with_context(|| format!("no server answers at {}", self.url))?;
        let (status, json) = (reply.status(), reply.json::<Value>().await.unwrap_or_default());
        if !status.is_success() {
            let why = json["error"].as_str().unwrap_or("it did not say why");
            bail!("the server refused ({status}): {why}");
        }
        Ok(json)
    }
}

/// A query; the values are user ids, words and numbers.
fn form(pairs: &[(&str, String)]) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('&', "%26").replace('+', "%2B").replace('=', "%3D");
    pairs.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect::<Vec<_>>().join("&")
}
