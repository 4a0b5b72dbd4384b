//! The program itself, as a process.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    time::Duration,
};

use everfold::config::Sources;
use serde_json::Value;
use tempfile::TempDir;

use crate::common::{Client, replay};

pub fn everfold(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_everfold"));
    command.args(arguments).arg("--data").arg(data).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("EVERFOLD_CONFIG");
    command
}

pub fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The objects that a command printed, which must have done what it was asked.
#[track_caller]
pub fn printed(output: &Output) -> Vec<Value> {
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
}

/// A server in a process of its own.
pub struct Served {
    child: Child,
    data: PathBuf,
    pub url: String,
    /// What it says first, after where it is.
    pub greeting: String,
    /// Open as long as it runs, for it may say more.
    _stdout: Option<Lines<BufReader<ChildStdout>>>,
}

impl Served {
    pub fn start(data: &Path) -> Self {
        Self::of(&mut everfold(data, &["serve", "--listen", "127.0.0.1:0"]))
    }

    pub fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = stdout.by_ref().map(Result::unwrap);
        let url = lines.next().and_then(|line| line.strip_prefix("listening on ").map(ToOwned::to_owned));
        let url = url.expect("a line that says where it listens");
        let data =
            command.get_args().skip_while(|argument| *argument != "--data").nth(1).expect("a data folder").into();
        Self { child, data, url, greeting: lines.take(2).collect(), _stdout: Some(stdout) }
    }

    /// Ends it. If it could end well, whatever it did, folding its log again gives the same read models.
    pub fn signal(mut self, name: &str) -> Option<i32> {
        let killed = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        let code = self.child.wait().unwrap().code();
        // A replay has no log.
        if code == Some(0) && self.data.join("log").exists() {
            replay::check(&self.data.join("log"), &self.data.join("read-models"));
        }
        code
    }
}

impl Drop for Served {
    /// A test that fails leaves none behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_first_administrator_is_made_and_changed_from_the_command_line() {
    let data = TempDir::new().unwrap();
    let before = run(&mut everfold(data.path(), &["user", "list"]), "");
    assert_eq!(before.status.code(), Some(1));
    assert!(text(&before).contains("no server has run"), "{}", text(&before));

    let served = Served::start(data.path());
    let client = Client::new(served.url.clone());
    let made = printed(&run(&mut everfold(data.path(), &["user", "create", "Root", "--admin"]), "")).remove(0);
    assert_eq!(made["user_id"], "@root:localhost");
    let password = made["password"].as_str().expect("a password");
    let root = client.logged_in(&client.log_in("root", password, serde_json::json!({})).await.ok());
    root.get("/_synapse/admin/v2/users").await.ok();

    let created = run(&mut everfold(data.path(), &["user", "create", "anna", "--password-stdin"]), "her password\n");
    assert_eq!(printed(&created), [serde_json::json!({ "user_id": "@anna:localhost" })]);
    let again = run(&mut everfold(data.path(), &["user", "create", "anna"]), "");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("this user name is taken"), "{}", text(&again));
    assert!(run(&mut everfold(data.path(), &["user", "set-admin", "root", "false"]), "").status.success());
    assert_eq!(root.get("/_synapse/admin/v2/users").await.error(), (403, "M_FORBIDDEN"));
    let set = ["user", "set-password", "@anna:localhost", "--password-stdin"];
    assert!(run(&mut everfold(data.path(), &set), "her new password\n").status.success());
    client.log_in("anna", "her new password", serde_json::json!({})).await.ok();
    let users = || printed(&run(&mut everfold(data.path(), &["user", "list"]), ""));
    let names = |users: &[Value]| users.iter().map(|user| user["name"].clone()).collect::<Vec<_>>();
    assert_eq!(names(&users()), ["@anna:localhost", "@root:localhost"]);
    assert_eq!(served.signal("TERM"), Some(0));

    // Where no server runs, one does for as long as the command, under the name that the log has.
    let mut create = everfold(data.path(), &["user", "create", "bert", "--password-stdin"]);
    create.env("EVERFOLD_SERVER_NAME", "other.example");
    assert_eq!(printed(&run(&mut create, "his password\n")), [serde_json::json!({ "user_id": "@bert:localhost" })]);
    assert_eq!(names(&users()), ["@anna:localhost", "@bert:localhost", "@root:localhost"]);
    let served = Served::start(data.path());
    Client::new(served.url.clone()).log_in("bert", "his password", serde_json::json!({})).await.ok();
    let elsewhere = ["user", "list", "--url", "http://127.0.0.1:1"];
    let unreachable = text(&run(&mut everfold(data.path(), &elsewhere), ""));
    assert!(unreachable.contains("no server answers at"), "{unreachable}");
    let over_there = run(&mut everfold(data.path(), &["user", "list", "--url", &served.url]), "");
    assert_eq!(printed(&over_there).len(), 3);
    served.signal("TERM");
}

#[test]
fn the_greeting_names_a_command_that_works_as_typed() {
    let folder = TempDir::new().unwrap();
    let served = Served::start(&folder.path().join("my data"));
    let (_, command) = served.greeting.split_once("make the first administrator with: ").expect("a command");
    let made = Command::new("sh").args(["-c", &command.replace("NAME", "root")]).output().unwrap();
    assert_eq!(printed(&made)[0]["user_id"], "@root:localhost");
    served.signal("TERM");
}

#[tokio::test]
async fn a_server_stops_well_when_told_and_loses_nothing_when_killed() {
    let data = TempDir::new().unwrap();
    for signal in ["TERM", "INT", "KILL"] {
        let served = Served::start(data.path());
        let client = Client::new(served.url.clone());
        assert_eq!(client.get("/health/ready").await.ok()["ready"], true);
        let create = run(&mut everfold(data.path(), &["user", "create", &signal.to_lowercase()]), "");
        assert!(create.status.success(), "{}", text(&create));
        assert_eq!(served.signal(signal), if signal == "KILL" { None } else { Some(0) });
    }
    let served = Served::start(data.path());
    let listed = text(&run(&mut everfold(data.path(), &["user", "list"]), ""));
    assert_eq!(listed.lines().count(), 3, "{listed}");
    served.signal("TERM");
}

#[test]
fn a_server_says_whether_it_is_healthy() {
    let data = TempDir::new().unwrap();
    let absent = run(&mut everfold(data.path(), &["health"]), "");
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent).contains("does it run?"), "{}", text(&absent));
    let served = Served::start(data.path());
    let healthy = serde_json::json!({ "ready": true, "tail": 1, "folded": 1 });
    assert_eq!(printed(&run(&mut everfold(data.path(), &["health"]), "")), std::slice::from_ref(&healthy));
    let elsewhere = TempDir::new().unwrap();
    let at = run(&mut everfold(elsewhere.path(), &["health", "--url", &served.url]), "");
    assert_eq!(printed(&at), [healthy]);
    assert_eq!(served.signal("TERM"), Some(0));
    let gone = run(&mut everfold(data.path(), &["health"]), "");
    assert_eq!(gone.status.code(), Some(1));
    assert!(text(&gone).contains("no server answers at"), "{}", text(&gone));
}

#[tokio::test]
async fn log_lines_show_what_a_request_wrote() {
    let data = TempDir::new().unwrap();
    let mut command = everfold(data.path(), &["serve", "--listen", "127.0.0.1:0", "--registration", "open"]);
    command.env("EVERFOLD_TELEMETRY_FILTER", "info,everfold::http=debug").env("EVERFOLD_TELEMETRY_FORMAT", "json");
    let mut served = Served::of(&mut command);
    let client = Client::new(served.url.clone());
    let body =
        serde_json::json!({ "username": "anna", "password": "her password", "auth": { "type": "m.login.dummy" } });
    client.post("/register?access_token=in-the-query", body).await.ok();
    let mut stderr = served.child.stderr.take().unwrap();
    assert_eq!(served.signal("TERM"), Some(0));
    let mut lines = String::new();
    stderr.read_to_string(&mut lines).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let line = lines.iter().find(|line| line["span"]["route"] == "/_matrix/client/v3/register").expect("a line");
    assert_eq!((&line["status"], &line["span"]["method"]), (&200.into(), &"POST".into()));
    assert_eq!(line["span"]["lsn"], 2);
    assert_eq!(line["span"]["record"].as_str().map(str::len), Some(32));
    assert!(lines.iter().all(|line| !line.to_string().contains("in-the-query")), "a token is in the log");
}

#[tokio::test]
async fn a_server_goes_on_when_nobody_reads_what_it_says() {
    for closed in [true, false] {
        let data = TempDir::new().unwrap();
        let mut command = everfold(data.path(), &["serve", "--listen", "127.0.0.1:0"]);
        if closed {
            // `everfold serve >&-`
            command = in_shell("exec \"$0\" \"$@\" >&-", &command);
        }
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        // A pipe whose reader is gone before anything is written.
        drop(child.stdout.take());
        let address = data.path().join("address");
        let url = loop {
            assert!(child.try_wait().unwrap().is_none(), "the server has ended");
            match std::fs::read_to_string(&address) {
                Ok(url) if !url.is_empty() => break url,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let client = Client::new(url);
        for _ in 0..3 {
            client.get("/_matrix/client/versions").await.ok();
        }
        let served =
            Served { child, data: data.path().to_owned(), url: String::new(), greeting: String::new(), _stdout: None };
        assert_eq!(served.signal("TERM"), Some(0));
    }
}

/// The same command, as a shell runs it.
fn in_shell(script: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
    shell.env_remove("EVERFOLD_CONFIG");
    shell
}

#[test]
fn damaged_read_models_are_set_aside_and_folded_again() {
    let data = TempDir::new().unwrap();
    let served = Served::start(data.path());
    assert!(run(&mut everfold(data.path(), &["user", "create", "anna"]), "").status.success());
    assert_eq!(served.signal("TERM"), Some(0));
    let models = data.path().join("read-models");
    let manifest = std::fs::read_dir(&models).unwrap().map(|entry| entry.unwrap().path());
    let manifest = manifest.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST"));
    for file in manifest {
        std::fs::write(file, "not a manifest").unwrap();
    }
    let served = Served::start(data.path());
    let listed = text(&run(&mut everfold(data.path(), &["user", "list"]), ""));
    assert!(listed.contains("@anna:localhost"), "{listed}");
    served.signal("TERM");
    let aside = std::fs::read_dir(data.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(aside.filter(|name| name.starts_with("read-models.damaged-")).count(), 1);
}

#[test]
fn wrong_settings_are_named() {
    let data = TempDir::new().unwrap();
    for (arguments, expected) in [
        (&["serve", "--log", "kafka://localhost:9092"][..], "names no topic"),
        (&["serve", "--registration", "ajar"], "registration.mode"),
        (&["serve", "--config", "/nonexistent"], "/nonexistent"),
        (&["config", "check", "--config", "/nonexistent"], "/nonexistent"),
    ] {
        let output = run(&mut everfold(data.path(), arguments), "");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
    let mistyped = run(everfold(data.path(), &["config", "check"]).env("EVERFOLD_RATE_LIMIT", "off"), "");
    assert!(text(&mistyped).contains("EVERFOLD_RATE_LIMIT"), "{}", text(&mistyped));
    assert_eq!(run(&mut everfold(data.path(), &["nonsense"]), "").status.code(), Some(2));
    let example = Command::new(env!("CARGO_BIN_EXE_everfold")).args(["config", "example"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&example.stdout), everfold::config::EXAMPLE);

    // A file for another folder, which is then checked and used.
    let folder = data.path().join("it's \"mine\"");
    let example = run(&mut everfold(&folder, &["config", "example"]), "");
    let file = data.path().join("everfold.toml");
    std::fs::write(&file, &example.stdout).unwrap();
    let config = everfold::config::Config::load(Sources { file: Some(&file), ..Sources::default() }).unwrap();
    assert_eq!(config.data, folder);
    let checked = run(&mut everfold(&folder, &["config", "check", "--config", file.to_str().unwrap()]), "");
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked));
}

#[test]
fn a_data_folder_has_one_server_and_one_name() {
    let data = TempDir::new().unwrap();
    let served = Served::start(data.path());
    let second = run(&mut everfold(data.path(), &["serve", "--listen", "127.0.0.1:0"]), "");
    assert_eq!(second.status.code(), Some(1));
    assert!(text(&second).contains("another process has the log"), "{}", text(&second));
    served.signal("TERM");
    let renamed = run(&mut everfold(data.path(), &["serve", "--server-name", "other.example"]), "");
    assert_eq!(renamed.status.code(), Some(1));
    assert!(text(&renamed).contains("belongs to the server localhost"), "{}", text(&renamed));
}
