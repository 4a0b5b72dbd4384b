//! A real broker: `EVERFOLD_TEST_KAFKA=HOST:PORT` names one, else `scripts/kafka` starts one, which ends with this process
//! however that ends.

use std::{
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::OnceLock,
};

/// What `scripts/kafka` says where a broker can't be had.
const NOT_TO_BE_HAD: i32 = 3;

/// The broker that all tests of this process share; none where there can't be one, which is said loudly.
pub fn address() -> Option<String> {
    static SHARED: OnceLock<Option<String>> = OnceLock::new();
    let start = || match std::env::var("EVERFOLD_TEST_KAFKA") {
        Ok(address) => Some(address),
        // Its process ends with this one's, without a drop.
        Err(_) => Broker::start().map(|broker| std::mem::ManuallyDrop::new(broker).address()),
    };
    SHARED.get_or_init(start).clone()
}

/// A broker of a test's own.
pub struct Broker {
    pub folder: PathBuf,
    port: u16,
    /// Stops the broker, and removes its folder, once its input ends.
    guard: Child,
}

impl Broker {
    pub fn start() -> Option<Self> {
        Self::start_with(|_, _| ())
    }

    /// Starts one after `prepare` has had its folder and its port; the second port after that is free.
    pub fn start_with(prepare: impl FnOnce(&Path, u16)) -> Option<Self> {
        if !is_to_be_had() {
            return None;
        }
        let folder = tempfile::Builder::new().prefix("everfold-kafka-").tempdir().unwrap().keep();
        let guard = guard(&format!("scripts/kafka stop {0}; rm -rf {0}", folder.display()));
        let broker = Self { folder, port: free_ports(3), guard };
        prepare(&broker.folder, broker.port);
        broker.begin();
        Some(broker)
    }

    /// Starts it on the data that it has.
    pub fn begin(&self) {
        let port = self.port.to_string();
        let started = script(&["start", self.folder.to_str().unwrap(), &port]);
        assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    }

    /// Sends its process a signal: `-STOP` halts it, `-CONT` lets it go on.
    pub fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.folder.join("pid")).unwrap();
        assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Whether there is a broker to start. If not, that is told past the test harness, which would keep it to itself.
pub fn is_to_be_had() -> bool {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    *INSTALLED.get_or_init(|| {
        let installed = script(&["install"]);
        let why = String::from_utf8_lossy(&installed.stderr);
        match installed.status.code() {
            Some(0) => true,
            Some(NOT_TO_BE_HAD) => {
                let line = "!".repeat(100);
                let told = format!("{line}\nTHE TESTS ON KAFKA DO NOT RUN: {}\n{line}\n", why.trim());
                std::io::stderr().write_all(told.as_bytes()).unwrap();
                false
            }
            _ => panic!("{why}"),
        }
    })
}

/// So many free ports, one after another; gives the first.
pub fn free_ports(count: u16) -> u16 {
    let free = |first: &u16| (0..count).all(|n| TcpListener::bind(("127.0.0.1", first + n)).is_ok());
    let chosen = std::iter::repeat_with(|| rand::random_range(20_000..30_000)).find(free);
    chosen.unwrap()
}

/// Runs `scripts/kafka`.
pub fn script(arguments: &[&str]) -> Output {
    Command::new(root().join("scripts/kafka")).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Does something once this process has ended, or the guard is let go.
pub fn guard(then: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("trap '' INT TERM HUP; cat >/dev/null; {then}")]).current_dir(root());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}
