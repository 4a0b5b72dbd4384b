//! `everfold user create`, `list`, `set-password`, `set-admin`: through the running server, with the shared secret that
//! its data folder or settings hold.

use std::io::BufRead;

use anyhow::{Context, bail};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::Method;
use serde_json::{Value, json};
use sha1::Sha1;

use super::{
    Settings,
    output::{Format, Output, time},
    server::Server,
};
use crate::clock::{Random, SystemRandom};

/// What to do with accounts.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  everfold user create alice --admin                    the first administrator; a password is made up and printed
  everfold user create bob --password-stdin < secret
  everfold user list
  everfold user set-password alice --password-stdin < secret
  everfold user set-admin alice false

They ask the running server, with its shared secret: use the same --data or --config as for `everfold serve`. Where no
server runs on the data folder, one does for as long as the command.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    format: Format,
    /// Where the server is, if not where its data folder says.
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Register an account.
    #[command(after_help = "\
Examples:
  everfold user create alice --admin                    a password is made up and printed
  everfold user create bob --password-stdin < secret")]
    Create {
        /// Its name: the localpart, or the whole user id.
        name: String,
        /// It administers the server.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: Password,
    },
    /// Print all accounts.
    #[command(after_help = "Example:\n  everfold user list | jq -r 'select(.admin) | .name'")]
    List {
        /// Those that were deactivated, too.
        #[arg(long)]
        deactivated: bool,
    },
    /// Change a password, and log out all devices.
    #[command(after_help = "Example:\n  everfold user set-password alice --password-stdin < secret")]
    SetPassword {
        /// Whose: the localpart, or the whole user id.
        name: String,
        #[command(flatten)]
        password: Password,
    },
    /// Make somebody an administrator of the server, or no longer one.
    #[command(after_help = "Examples:\n  everfold user set-admin alice\n  everfold user set-admin alice false")]
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
    /// The password, and whether it was made up.
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
    let mut out = args.format.output();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::find(&args.settings, args.url.as_deref()).await?;
        let done = carry_out(&server, &args.command, &mut out).await;
        server.stop().await;
        done
    })?;
    Ok(out.flush()?)
}

async fn carry_out(server: &Server, command: &Command, out: &mut Output) -> anyhow::Result<()> {
    let id = |name: &str| if name.starts_with('@') { name.to_owned() } else { format!("@{name}:{}", server.name()) };
    match command {
        Command::Create { name, admin, password } => {
            let (password, made_up) = password.get()?;
            let user = create(server, name, &password, *admin).await?;
            print_password(out, &user, made_up.then_some(&password))
        }
        Command::List { deactivated } => list(server, *deactivated, out).await,
        Command::SetPassword { name, password } => {
            let (password, made_up) = password.get()?;
            let request = server.request(Method::POST, &format!("/_synapse/admin/v1/reset_password/{}", id(name)));
            server.ask(request.json(&json!({ "new_password": password }))).await?;
            print_password(out, &id(name), made_up.then_some(&password))
        }
        Command::SetAdmin { name, admin } => {
            let request = server.request(Method::PUT, &format!("/_synapse/admin/v1/users/{}/admin", id(name)));
            server.ask(request.json(&json!({ "admin": admin }))).await?;
            let word = if *admin { "an administrator" } else { "no administrator" };
            Ok(out.print(&json!({ "user_id": id(name), "admin": admin }), |_| format!("{} is {word}", id(name)))?)
        }
    }
}

/// Tells the password if it was made up: else whoever asked knows it.
fn print_password(out: &mut Output, user: &str, made_up: Option<&String>) -> anyhow::Result<()> {
    let result = match made_up {
        Some(password) => json!({ "user_id": user, "password": password }),
        None => json!({ "user_id": user }),
    };
    let text = |_: &Value| made_up.map_or_else(|| user.to_owned(), |password| format!("{user}\npassword: {password}"));
    Ok(out.print(&result, text)?)
}

async fn create(server: &Server, name: &str, password: &str, admin: bool) -> anyhow::Result<String> {
    let path = "/_synapse/admin/v1/register";
    let nonce = server.ask(server.request(Method::GET, path)).await?;
    let nonce = nonce["nonce"].as_str().context("the server gave no nonce")?;
    let mut mac = Hmac::<Sha1>::new_from_slice(server.secret.as_bytes())?;
    mac.update([nonce, name, password, if admin { "admin" } else { "notadmin" }].join("\0").as_bytes());
    let mac = hex::encode(mac.finalize().into_bytes());
    let body = json!({
        "nonce": nonce, "username": name, "password": password, "admin": admin, "mac": mac, "inhibit_login": true,
    });
    let made = server.ask(server.request(Method::POST, path).json(&body)).await?;
    Ok(made["user_id"].as_str().unwrap_or_default().to_owned())
}

async fn list(server: &Server, deactivated: bool, out: &mut Output) -> anyhow::Result<()> {
    let mut from: Option<String> = None;
    loop {
        let mut query = vec![("limit", "1000".to_owned()), ("deactivated", deactivated.to_string())];
        query.extend(from.map(|from| ("from", from)));
        let path = format!("/_synapse/admin/v2/users?{}", form(&query));
        let page = server.ask(server.request(Method::GET, &path)).await?;
        for user in page["users"].as_array().into_iter().flatten() {
            out.print(user, account)?;
        }
        match page["next_token"].as_str() {
            Some(next) => from = Some(next.to_owned()),
            None => return Ok(()),
        }
    }
}

/// An account for people.
fn account(user: &Value) -> String {
    let words = ["admin", "deactivated", "locked", "suspended"].into_iter().filter(|word| user[*word] == true);
    let guest = (user["is_guest"] == true).then_some("guest");
    let words: Vec<_> = words.chain(guest).collect();
    let created = time(user["creation_ts"].as_u64().unwrap_or_default());
    format!("{:<40}  {created}  {}", user["name"].as_str().unwrap_or_default(), words.join(" ")).trim_end().to_owned()
}

/// A query; the values are user ids, words and numbers.
fn form(pairs: &[(&str, String)]) -> String {
    let escape = |text: &str| text.replace('%', "%25").replace('&', "%26").replace('+', "%2B").replace('=', "%3D");
    pairs.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect::<Vec<_>>().join("&")
}
