//! CPU time of processes, from `/proc`.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Linux reports process times to user space in hundredths of a second on every architecture.
const TICK_MS: u64 = 10;

/// The processes whose CPU time counts as the server's.
#[derive(Clone, Debug, Default)]
pub struct ServerProcesses {
    roots: Vec<u32>,
}

/// Accumulated CPU time at one moment.
#[derive(Clone, Copy, Debug)]
pub struct CpuSample {
    /// The server's processes with their descendants; absent where none were named.
    pub server: Option<Duration>,
    /// This process.
    pub driver: Duration,
    /// All that the machine's cores did other than idle.
    pub machine: Duration,
}

struct Process {
    parent: u32,
    /// Own time and that of children already waited for.
    time: Duration,
}

impl ServerProcesses {
    /// The processes `roots` and all their descendants, present and past.
    pub fn new(roots: Vec<u32>) -> Self {
        Self { roots }
    }

    /// Reads the clocks; fails where a named process is gone.
    pub fn sample(&self) -> Result<CpuSample> {
        let server = if self.roots.is_empty() { None } else { Some(self.server_time()?) };
        let driver = parse_stat(&fs::read_to_string("/proc/self/stat")?).context("read /proc/self/stat")?.time;
        Ok(CpuSample { server, driver, machine: machine_time()? })
    }

    fn server_time(&self) -> Result<Duration> {
        let processes = all_processes()?;
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (pid, process) in &processes {
            children.entry(process.parent).or_default().push(*pid);
        }
        // The time of a child that ended is in its parent's, so that the sum never falls.
        let mut family: HashMap<u32, Duration> = HashMap::new();
        let mut open = self.roots.clone();
        while let Some(pid) = open.pop() {
            let Some(process) = processes.get(&pid) else {
                bail!("there is no process {pid}");
            };
            if family.insert(pid, process.time).is_none() {
                open.extend(children.get(&pid).into_iter().flatten());
            }
        }
        Ok(family.values().sum())
    }
}

fn all_processes() -> Result<HashMap<u32, Process>> {
    let mut processes = HashMap::new();
    for entry in fs::read_dir("/proc").context("read /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the listing and the reading.
        if let Some(process) = fs::read_to_string(entry.path().join("stat")).ok().as_deref().and_then(parse_stat) {
            processes.insert(pid, process);
        }
    }
    Ok(processes)
}

/// Reads the fields `ppid`, `utime`, `stime`, `cutime`, `cstime` of proc(5); the name before them may hold anything.
fn parse_stat(stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks: Option<u64> = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum();
    Some(Process { parent: fields.get(1)?.parse().ok()?, time: Duration::from_millis(TICK_MS * ticks?) })
}

/// User, nice, system, irq, softirq and steal time of all cores.
fn machine_time() -> Result<Duration> {
    let stat = fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let fields: Vec<u64> = line.split_ascii_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    let idle: u64 = fields.iter().skip(3).take(2).sum();
    let all: u64 = fields.iter().take(8).sum();
    Ok(Duration::from_millis(TICK_MS * (all - idle)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_spaces_and_brackets() {
        let stat = "42 (a) b (c) S 7 1 1 0 -1 0 0 0 0 0 100 20 3 4 20 0 1 0 99";
        let process = parse_stat(stat).expect("a stat line");
        assert_eq!(process.parent, 7);
        assert_eq!(process.time, Duration::from_millis(1270));
    }

    #[test]
    fn a_process_that_is_gone_is_an_error() {
        let gone = ServerProcesses::new(vec![u32::MAX]);
        assert!(gone.sample().is_err());
    }

    #[test]
    fn descendants_count() {
        let own = std::process::id();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("spawn sleep");
        let processes = all_processes().expect("read /proc");
        let parent = processes.get(&child.id()).map(|process| process.parent);
        child.kill().expect("kill sleep");
        child.wait().expect("wait for sleep");
        assert_eq!(parent, Some(own));
        let sample = ServerProcesses::new(vec![own]).sample().expect("sample");
        assert!(sample.server.is_some_and(|time| time <= sample.machine));
    }
}
