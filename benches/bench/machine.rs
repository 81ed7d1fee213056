//! What the machine is, and what of it each process takes.

use std::fs;
use std::time::Duration;

use crate::load::as_f64;

/// The processes that a line keeps busy. The load generator is always one.
pub(crate) struct Processes {
    /// The HTTP server, if there is one.
    pub(crate) server: Option<u32>,
    /// Postgres' first process; its backends are its children.
    pub(crate) postgres: Option<u32>,
}

/// Processor time, in seconds since the process began; or in cores, as the
/// difference over some time.
#[derive(Clone, Copy, Default, serde::Serialize)]
pub(crate) struct Cpu {
    pub(crate) generator: f64,
    pub(crate) server: f64,
    pub(crate) postgres: f64,
}

impl Processes {
    pub(crate) fn cpu(&self) -> Cpu {
        let with_children = |root: u32| -> f64 {
            all()
                .filter(|stat| stat.pid == root || stat.parent == root)
                .map(|stat| stat.cpu_seconds)
                .sum()
        };
        let alone = |pid| stat(pid).map_or(0.0, |stat| stat.cpu_seconds);
        Cpu {
            generator: alone(std::process::id()),
            server: self.server.map_or(0.0, alone),
            postgres: self.postgres.map_or(0.0, with_children),
        }
    }
}

impl Cpu {
    /// The cores that were busy in between.
    pub(crate) fn since(&self, before: &Self, time: Duration) -> Self {
        let cores = |now: f64, then: f64| (now - then) / time.as_secs_f64();
        Self {
            generator: cores(self.generator, before.generator),
            server: cores(self.server, before.server),
            postgres: cores(self.postgres, before.postgres),
        }
    }
}

struct Stat {
    pid: u32,
    parent: u32,
    cpu_seconds: f64,
}

/// proc(5): fields 4, 14, 15, 16 and 17, counted behind the name in brackets.
/// The times of children that have ended count with their parent.
fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields
        .get(11..15)?
        .iter()
        .filter_map(|f| f.parse::<u64>().ok())
        .sum();
    Some(Stat {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        // sysconf(_SC_CLK_TCK) is 100 on every Linux.
        cpu_seconds: as_f64(ticks) / 100.0,
    })
}

fn all() -> impl Iterator<Item = Stat> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(stat)
}

/// The child of `parent` that is called `name`.
pub(crate) fn child_called(parent: u32, name: &str) -> Option<u32> {
    all()
        .find(|stat| {
            stat.parent == parent
                && fs::read_to_string(format!("/proc/{}/comm", stat.pid))
                    .is_ok_and(|comm| comm.trim() == name)
        })
        .map(|stat| stat.pid)
}

/// Resident memory of a process, in MiB: now, and at its highest.
pub(crate) fn memory_mib(pid: u32) -> (f64, f64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .trim()
                    .strip_suffix("kB")?
                    .trim()
                    .parse()
                    .ok()
            })
            .map_or(0.0, |kib: f64| kib / 1024.0)
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// The machine in a line.
pub(crate) fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str, name: &str| {
        fs::read_to_string(path).ok().and_then(|text| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
    };
    let memory = read("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .map_or(0.0, |kib| as_f64(kib) / 1024.0 / 1024.0);
    let model = read("/proc/cpuinfo", "model name").unwrap_or_else(|| "processor unknown".into());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{cores} cores ({model}), {memory:.0} GiB, Linux {}",
        kernel.trim()
    )
}
