//! The scripts on machines that lack something: the commands that they find are a test's.
#![expect(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;

/// A machine with the usual tools, and what a test puts there.
struct Machine(TempDir);

impl Machine {
    fn with(commands: &[(&str, &str)]) -> Self {
        let machine = Self(TempDir::new().unwrap());
        fs::create_dir(machine.bin()).unwrap();
        for name in ["cat", "cp", "grep", "kill", "ls", "mkdir", "ps", "rm", "sed", "sh", "sleep", "tail", "tr"] {
            let found =
                ["/bin", "/usr/bin"].map(|folder| Path::new(folder).join(name)).into_iter().find(|p| p.exists());
            // What a shell has built in need not be there.
            found.into_iter().for_each(|path| symlink(path, machine.bin().join(name)).unwrap());
        }
        for (name, body) in commands {
            let path = machine.bin().join(name);
            fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        machine
    }

    fn bin(&self) -> PathBuf {
        self.0.path().join("bin")
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(script);
        let mut command = Command::new("/bin/sh");
        command.arg(script).args(arguments).env("PATH", self.bin()).env("EVERFOLD_CACHE", self.0.path());
        command.stdin(Stdio::null()).output().unwrap()
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A Java of some version.
fn java(version: &str) -> String {
    format!("echo 'openjdk version \"{version}\" 2021-01-19' >&2")
}

#[test]
fn what_only_some_tests_need_stops_no_others() {
    let there = ["cargo", "clang", "cmake", "make", "g++", "pkg-config", "python3", "npm"].map(|name| (name, ""));
    let root = [("id", "echo 0"), ("node", "echo v22.0.0"), ("java", &java("11.0.9"))];
    // Offline: nothing can be fetched, and only what is needed for the build is to be had.
    let apt = "case \"$*\" in *jre*|*update*) echo 'no network' >&2; exit 100;; *) echo \"$*\" >>\"$0.log\";; esac";
    let machine = Machine::with(&[&there[..], &root, &[("apt-get", apt)]].concat());
    let done = machine.run("setup", &["--tests"]);
    assert!(done.status.success(), "{}", told(&done));
    let why = "the tests on Kafka will not run without these packages (names as in Debian): default-jre-headless maven";
    assert!(told(&done).contains(why), "{}", told(&done));

    let without = there.iter().filter(|(name, _)| *name != "cmake").copied().collect::<Vec<_>>();
    let machine = Machine::with(&[&without[..], &root, &[("apt-get", apt)]].concat());
    assert!(machine.run("setup", &["--tests"]).status.success());
    let installed = fs::read_to_string(machine.bin().join("apt-get.log")).unwrap();
    assert!(installed.contains("cmake") && !installed.contains("jre"), "{installed}");

    let machine = Machine::with(&[&without[..], &root, &[("apt-get", "exit 100")]].concat());
    let refused = machine.run("setup", &[]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(told(&refused).contains("please install these packages (names as in Debian): cmake"), "{}", told(&refused));
}

#[test]
fn a_broker_is_not_to_be_had_where_java_is_too_old() {
    for (version, found) in [("1.8.0_292", "1"), ("11.0.9", "11"), ("16.0.1", "16")] {
        let machine = Machine::with(&[("java", &java(version))]);
        let refused = machine.run("kafka", &["install"]);
        assert_eq!(refused.status.code(), Some(3), "{}", told(&refused));
        let why = format!("java is of version {found}: install a JRE of version 17 or newer");
        assert!(told(&refused).contains(&why), "{}", told(&refused));
    }
    let machine = Machine::with(&[("java", &java("21.0.1"))]);
    assert!(told(&machine.run("kafka", &["install"])).contains("there is no mvn"));
}

#[test]
fn the_process_of_somebody_else_is_left_alone() {
    let machine = Machine::with(&[]);
    let folder = machine.0.path().join("broker");
    fs::create_dir(&folder).unwrap();
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(folder.join("pid"), other.id().to_string()).unwrap();
    let stopped = machine.run("kafka", &["stop", folder.to_str().unwrap()]);
    let lives = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(stopped.status.success() && lives, "{}", told(&stopped));
    assert!(!folder.join("pid").exists());
}
