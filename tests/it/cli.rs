//! The program itself, as a process.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use tempfile::TempDir;

use crate::common::Client;

fn everfold(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_everfold"));
    command.args(arguments).arg("--data").arg(data).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("EVERFOLD_CONFIG");
    command
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A server in a process of its own.
struct Served {
    child: Child,
    url: String,
}

impl Served {
    fn start(data: &Path) -> Self {
        Self::of(&mut everfold(data, &["serve", "--listen", "127.0.0.1:0"]))
    }

    fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let url = lines.next().and_then(|line| line.strip_prefix("listening on ").map(ToOwned::to_owned));
        assert!(
            lines.take(2).any(|line| line.contains("everfold user create NAME --admin")),
            "no way to the first admin"
        );
        Self { child, url: url.expect("a line that says where it listens") }
    }

    fn signal(mut self, name: &str) -> Option<i32> {
        let killed = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        self.child.wait().unwrap().code()
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
    let made = text(&run(&mut everfold(data.path(), &["user", "create", "Root", "--admin"]), ""));
    let password = made.lines().find_map(|line| line.strip_prefix("password: ")).expect("a password");
    assert!(made.starts_with("@root:localhost\n"), "{made}");
    let root = client.logged_in(&client.log_in("root", password, serde_json::json!({})).await.ok());
    root.get("/_synapse/admin/v2/users").await.ok();

    let created = run(&mut everfold(data.path(), &["user", "create", "anna", "--password-stdin"]), "her password\n");
    assert_eq!((created.status.code(), text(&created).as_str()), (Some(0), "@anna:localhost\n"));
    let again = run(&mut everfold(data.path(), &["user", "create", "anna"]), "");
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again).contains("this user name is taken"), "{}", text(&again));
    assert!(run(&mut everfold(data.path(), &["user", "set-admin", "root", "false"]), "").status.success());
    assert_eq!(root.get("/_synapse/admin/v2/users").await.error(), (403, "M_FORBIDDEN"));
    let set = ["user", "set-password", "@anna:localhost", "--password-stdin"];
    assert!(run(&mut everfold(data.path(), &set), "her new password\n").status.success());
    client.log_in("anna", "her new password", serde_json::json!({})).await.ok();
    let listed = text(&run(&mut everfold(data.path(), &["user", "list"]), ""));
    let names: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        names.iter().map(|user| user["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["@anna:localhost", "@root:localhost"]
    );
    assert_eq!(served.signal("TERM"), Some(0));
    let unreachable = run(&mut everfold(data.path(), &["user", "list"]), "");
    assert!(text(&unreachable).contains("no server answers at"), "{}", text(&unreachable));
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
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let line = lines.iter().find(|line| line["span"]["route"] == "/_matrix/client/v3/register").expect("a line");
    assert_eq!((&line["status"], &line["span"]["method"]), (&200.into(), &"POST".into()));
    assert_eq!(line["span"]["lsn"], 2);
    assert_eq!(line["span"]["record"].as_str().map(str::len), Some(32));
    assert!(lines.iter().all(|line| !line.to_string().contains("in-the-query")), "a token is in the log");
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
        (&["serve", "--log", "kafka://localhost:9092/everfold"][..], "no Kafka backend"),
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
