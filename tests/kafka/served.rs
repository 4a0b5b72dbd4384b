//! The program as a process, with its log on Kafka.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use everfold::{
    config::{Config, Sources, Topic},
    log::{KafkaLog, LogReader},
};
use projections::View;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{client::Client, replay};

/// What the brokers don't confirm in so many seconds is given up, in these tests.
pub const TIMEOUT: u64 = 3;

/// A data folder, and a topic that is not there yet.
pub struct Place {
    data: TempDir,
    topic: Topic,
    node: u32,
    /// More of the environment.
    settings: Vec<(&'static str, String)>,
}

impl Place {
    pub fn on(brokers: &str) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("served-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let topic = Topic { brokers: brokers.to_owned(), name };
        Self { data: TempDir::new().unwrap(), topic, node: 0, settings: Vec::new() }
    }

    /// A data folder for another node on the same topic; the first has run already.
    pub fn beside(&self, node: u32) -> Self {
        let data = TempDir::new().unwrap();
        std::fs::copy(self.data().join("signing.key"), data.path().join("signing.key")).unwrap();
        Self { data, topic: self.topic.clone(), node, settings: self.settings.clone() }
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    /// The same with more settings, by their names in the environment.
    pub fn with(mut self, settings: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// As settings name it.
    pub fn log(&self) -> String {
        format!("kafka://{}/{}", self.topic.brokers, self.topic.name)
    }

    pub fn topic(&self) -> &str {
        &self.topic.name
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_everfold"));
        command.args(arguments).arg("--data").arg(self.data()).env_remove("EVERFOLD_CONFIG").stdin(Stdio::null());
        command.env("EVERFOLD_LOG", self.log()).env("EVERFOLD_RATE_LIMITS", "off");
        command.env("EVERFOLD_LOG_KAFKA_TIMEOUT_SECONDS", TIMEOUT.to_string());
        command.env("EVERFOLD_NODE_NUMBER", self.node.to_string());
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn start(&self) -> Served {
        self.start_with(&["serve", "--registration", "open", "--listen", "127.0.0.1:0"])
    }

    /// A projector without a server.
    pub fn project(&self) -> Served {
        self.start_with(&["project"])
    }

    /// A server beside the projector.
    pub fn serve_beside(&self) -> Served {
        self.start_with(&["serve", "--no-projector", "--registration", "open", "--listen", "127.0.0.1:0"])
    }

    fn start_with(&self, arguments: &[&str]) -> Served {
        let file = self.data().join("told");
        let told = File::options().create(true).append(true).open(&file).unwrap();
        let arguments = [arguments, &["--server-name", "test.example"]].concat();
        let mut child = self.command(&arguments).stdout(Stdio::piped()).stderr(told).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("it doesn't start: {}", std::fs::read_to_string(&file).unwrap()));
        Served { child, url: url.to_owned(), _output: output }
    }

    /// Begins a command that says nothing.
    pub fn begin(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// What a command prints, or the first object of it.
    pub fn tool(&self, arguments: &[&str]) -> Value {
        self.objects(arguments).remove(0)
    }

    /// All that a command prints.
    pub fn objects(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.command(arguments).arg("--json").output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>().unwrap()
    }

    /// What a command says that fails.
    pub fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Folds the log of a stopped server from zero: that gives its read models. Nothing in it panicked.
    pub fn check(&self) -> View {
        self.check_through(&self.topic.brokers)
    }

    /// The same, and the log is read from a listener that wants nothing.
    pub fn check_through(&self, brokers: &str) -> View {
        let told = std::fs::read_to_string(self.data().join("told")).unwrap();
        assert!(!told.contains("panicked"), "{told}");
        let settings = Config::load(Sources::default()).unwrap().log.kafka;
        let topic = Topic { brokers: brokers.to_owned(), ..self.topic.clone() };
        let log: Box<dyn LogReader> = Box::new(KafkaLog::open_read_only(&settings, &topic).unwrap());
        replay::check_log(&*log, &self.data().join("read-models"))
    }
}

/// A server that runs. Dropping it kills it.
pub struct Served {
    child: Child,
    pub url: String,
    /// Kept, since it goes on writing.
    _output: BufReader<ChildStdout>,
}

impl Served {
    pub async fn register(&self, name: &str) -> Client {
        let auth = json!({ "type": "m.login.dummy" });
        let nobody = Client::new(self.url.clone());
        let reply = nobody.post("/register", json!({ "username": name, "password": "a password", "auth": auth })).await;
        nobody.logged_in(&reply.ok())
    }

    /// Somebody who logged in before a restart.
    pub fn client_of(&self, client: &Client) -> Client {
        Client::new(self.url.clone()).with_token(client.token())
    }

    pub fn stop(mut self) {
        assert!(Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // One that has ended already can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
