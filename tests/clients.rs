//! Real clients talk through the real server: matrix-nio (Python) and matrix-js-sdk (Node.js), two people of each with
//! the server killed in the middle of their conversation, and then one of each with the other. And synadm (Python), with
//! which an administrator does all that it can do.
//!
//! The scripts are in `tests/clients/`. Their libraries are installed with pip and npm, once for each set of pinned
//! versions, in `$EVERFOLD_CACHE` or else `~/.cache/everfold`.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

#[expect(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]
#[path = "it/common/replay.rs"]
mod replay;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// How long a server may take until it listens, after a kill included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a script may take between two lines of its output. The scripts give up by themselves before.
const SCRIPT_LIMIT: Duration = Duration::from_secs(180);
/// Whoever has it is an administrator.
const SHARED_SECRET: &str = "the administrators' word";
/// How much of a log is shown when something failed.
const LOG_LINES_MAX: usize = 60;

#[test]
fn two_people_with_nio_talk_across_a_kill() -> Result<()> {
    conversation(&Client::nio()?)
}

#[test]
fn two_people_with_the_js_sdk_talk_across_a_kill() -> Result<()> {
    conversation(&Client::js_sdk()?)
}

#[test]
fn an_administrator_uses_every_verb_of_synadm() -> Result<()> {
    let server = Server::start()?;
    Client::synadm()?.run("verbs", &server, &[SHARED_SECRET])?.finish()?;
    server.finish()
}

#[test]
fn nio_and_the_js_sdk_read_each_other() -> Result<()> {
    let server = Server::start()?;
    let (nio, js_sdk) = (Client::nio()?, Client::js_sdk()?);
    meet(&server, ("nora", &nio), ("jill", &js_sdk))?;
    meet(&server, ("jack", &js_sdk), ("nick", &nio))?;
    server.finish()
}

/// Two people talk, the server is killed and started again, and they go on.
fn conversation(client: &Client) -> Result<()> {
    let mut server = Server::start()?;
    let mut script =
        client.run("conversation", &server, &["--register", "alice", "alice's word", "bob", "bob's word"])?;
    script.wait_for("READY FOR RESTART")?;
    server.kill_and_restart()?;
    script.go_on()?;
    script.finish()?;
    server.finish()
}

/// The host makes an encrypted room and invites the guest; each must decrypt what the other says.
fn meet(server: &Server, host: (&str, &Client), guest: (&str, &Client)) -> Result<()> {
    let (host_id, guest_id) = (format!("@{}:localhost", host.0), format!("@{}:localhost", guest.0));
    let mut joining = guest.1.run("peer", server, &["--register", guest.0, "guest's word", &host_id])?;
    joining.wait_for("READY FOR INVITE")?;
    let inviting = host.1.run("peer", server, &["--register", "--create", host.0, "host's word", &guest_id])?;
    inviting.finish()?;
    joining.finish()
}

/// A client library that is installed, and the scripts that use it.
struct Client {
    interpreter: PathBuf,
    scripts: PathBuf,
    extension: &'static str,
    _copies: Option<TempDir>,
}

impl Client {
    /// matrix-nio.
    fn nio() -> Result<Self> {
        Self::python("nio")
    }

    /// synadm.
    fn synadm() -> Result<Self> {
        Self::python("synadm")
    }

    /// What is on Python, in a virtual environment of its own.
    fn python(name: &str) -> Result<Self> {
        let hint = "the client tests need Python 3.11 or newer with its venv module (Debian: python3 python3-venv)";
        let python = output(Command::new("python3").arg("--version"), hint)?;
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(name);
        let requirements = scripts.join("requirements.txt");
        let home = installed(name, &[python, fs::read(&requirements)?], |home| {
            output(Command::new("python3").args(["-m", "venv"]).arg(home), hint)?;
            let mut pip = Command::new(home.join("bin/python"));
            pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet", "-r"]).arg(&requirements);
            output(&mut pip, "the Python packages come from PyPI").map(drop)
        })?;
        Ok(Self { interpreter: home.join("bin/python"), scripts, extension: "py", _copies: None })
    }

    /// matrix-js-sdk in a folder of its own. Node.js looks for packages beside the script alone, hence the copies.
    fn js_sdk() -> Result<Self> {
        let hint = "the client tests need Node.js 20 or newer with npm (https://nodejs.org)";
        let node = output(Command::new("node").arg("--version"), hint)?;
        let major = String::from_utf8_lossy(&node).trim_start_matches('v').split('.').next().map(str::parse::<u32>);
        ensure!(matches!(major, Some(Ok(20..))), "{hint}; node --version: {}", String::from_utf8_lossy(&node));
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/js");
        let home = installed("js", &[node, fs::read(sources.join("package-lock.json"))?], |home| {
            for name in ["package.json", "package-lock.json", ".npmrc"] {
                fs::copy(sources.join(name), home.join(name))?;
            }
            let mut npm = Command::new("npm");
            npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(home);
            output(&mut npm, hint).map(drop)
        })?;
        let copies = TempDir::new()?;
        std::os::unix::fs::symlink(home.join("node_modules"), copies.path().join("node_modules"))?;
        for name in ["person.mjs", "conversation.mjs", "peer.mjs"] {
            fs::copy(sources.join(name), copies.path().join(name))?;
        }
        Ok(Self {
            interpreter: "node".into(),
            scripts: copies.path().to_owned(),
            extension: "mjs",
            _copies: Some(copies),
        })
    }

    /// Starts one of the scripts against the server.
    fn run(&self, name: &str, server: &Server, arguments: &[&str]) -> Result<Script> {
        let path = self.scripts.join(name).with_extension(self.extension);
        let mut command = Command::new(&self.interpreter);
        command.arg(&path).arg(&server.url).args(arguments).stdin(Stdio::piped());
        let process = Process::spawn(&mut command, &format!("{name}.{}", self.extension), &server.logs)?;
        Ok(Script { process, server_log: server.process.log.clone() })
    }
}

/// The folder in the cache that holds what `install` put there, when it was first called with these `inputs`.
fn installed(name: &str, inputs: &[Vec<u8>], install: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let cache = match env::var_os("EVERFOLD_CACHE") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(env::var_os("HOME").context("neither EVERFOLD_CACHE nor HOME is set")?)
            .join(".cache/everfold"),
    };
    let cache = std::path::absolute(cache.join("clients"))?;
    let mut hash = Sha256::new();
    for input in inputs {
        hash.update(Sha256::digest(input));
    }
    let key = format!("{name}-{}", &hex::encode(hash.finalize())[..16]);
    let home = cache.join(&key);
    let complete = home.join("complete");
    fs::create_dir_all(&cache)?;
    // Other tests, and other runs of them, may want the same folder at the same time.
    let lock = File::create(cache.join(format!("{key}.lock")))?;
    lock.lock()?;
    if !complete.exists() {
        if home.exists() {
            fs::remove_dir_all(&home)?;
        }
        fs::create_dir_all(&home)?;
        install(&home)?;
        File::create(complete)?;
    }
    Ok(home)
}

/// Runs a command to its end and returns what it wrote to stdout; `hint` says what is missing if it can't.
fn output(command: &mut Command, hint: &str) -> Result<Vec<u8>> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{shown} does not start: {hint}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} failed with {}: {hint}\n{log}", output.status);
    Ok(output.stdout)
}

/// A script under way.
struct Script {
    process: Process,
    server_log: PathBuf,
}

impl Script {
    /// Waits for a line on its stdout.
    fn wait_for(&mut self, text: &str) -> Result<()> {
        self.process.line_with(text, SCRIPT_LIMIT).with_context(|| tail(&self.server_log)).map(drop)
    }

    /// Tells it to go on.
    fn go_on(&mut self) -> Result<()> {
        let stdin = self.process.child.stdin.as_mut().context("stdin is not piped")?;
        writeln!(stdin, "go on").context("the script ended during the restart")
    }

    /// Waits for its end, which must be a success.
    fn finish(mut self) -> Result<()> {
        self.wait_for("DONE")?;
        let status = self.process.child.wait()?;
        ensure!(status.success(), "{} ended with {status}\n{}", self.process.title, tail(&self.process.log));
        Ok(())
    }
}

/// The server under test, with an embedded log in a temporary folder.
struct Server {
    process: Process,
    url: String,
    data: TempDir,
    logs: PathBuf,
}

impl Server {
    /// Starts a new server on a port that is free.
    fn start() -> Result<Self> {
        let data = TempDir::new()?;
        let logs = data.path().join("logs");
        fs::create_dir(&logs)?;
        let (process, url) = Self::spawn(data.path(), &logs, "127.0.0.1:0")?;
        Ok(Self { process, url, data, logs })
    }

    /// Kills the server with SIGKILL, and starts it again on the same data and port.
    fn kill_and_restart(&mut self) -> Result<()> {
        self.process.child.kill()?;
        self.process.child.wait()?;
        let address = self.url.trim_start_matches("http://").to_owned();
        let (process, url) = Self::spawn(self.data.path(), &self.logs, &address)?;
        ensure!(url == self.url, "the server came back at {url}, not at {}", self.url);
        self.process = process;
        Ok(())
    }

    /// Ends it: whatever the clients did, folding its log again gives the same read models.
    fn finish(mut self) -> Result<()> {
        let pid = self.process.child.id().to_string();
        ensure!(Command::new("kill").args(["-s", "TERM", &pid]).status()?.success(), "the server has ended by itself");
        let status = self.process.child.wait()?;
        ensure!(status.success(), "the server ended with {status}\n{}", tail(&self.process.log));
        let data = self.data.path().join("data");
        replay::check(&data.join("log"), &data.join("read-models"));
        Ok(())
    }

    /// Starts the binary, and returns it with the URL at which it says that it listens.
    fn spawn(folder: &Path, logs: &Path, listen: &str) -> Result<(Process, String)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_everfold"));
        command.arg("serve").arg("--data").arg(folder.join("data"));
        command.args(["--server-name", "localhost", "--listen", listen, "--registration", "open"]);
        command.env("EVERFOLD_RATE_LIMITS", "off").env("EVERFOLD_REGISTRATION_SHARED_SECRET", SHARED_SECRET);
        command.env("EVERFOLD_SERVER_NOTICES_LOCALPART", "notices").stdin(Stdio::null());
        let mut process = Process::spawn(&mut command, "everfold", logs)?;
        let line = process.line_with("listening on http://127.0.0.1:", START_LIMIT)?;
        let url = line.split_whitespace().find(|word| word.starts_with("http://")).context("no URL")?;
        Ok((process, url.trim_end_matches('/').to_owned()))
    }
}

/// A child process: its stdout line by line, its stderr in a file. It is killed when it is dropped.
struct Process {
    title: String,
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Process {
    /// Starts the command, whose stderr is appended to a file named after `title`.
    fn spawn(command: &mut Command, title: &str, logs: &Path) -> Result<Self> {
        let log = logs.join(format!("{title}.log"));
        let stderr = File::options().create(true).append(true).open(&log)?;
        let mut child = command.stdout(Stdio::piped()).stderr(stderr).spawn()?;
        let lines = lines(child.stdout.take().context("stdout is not piped")?);
        Ok(Self { title: title.to_owned(), child, lines, log })
    }

    /// Waits for the next line of its stdout with this text.
    fn line_with(&mut self, text: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} did not print “{text}” within {limit:?}\n{}", self.title, tail(&self.log))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!("{} ended with {status} before “{text}”\n{}", self.title, tail(&self.log))
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself, and there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of an output, which is read to its end even if nobody wants them, so that the writer never blocks.
fn lines(output: ChildStdout) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// The end of a log, for the message of a failure.
fn tail(log: &Path) -> String {
    let name = log.file_name().map_or_else(Default::default, OsStr::to_string_lossy);
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("--- {name}:\n{}", lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n"))
}
