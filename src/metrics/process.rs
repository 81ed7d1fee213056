//! What the operating system knows of this process, under the names that all
//! Prometheus clients use. From `/proc`; where there is none, it is left out.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::family::{CPU, MAX_FDS, OPEN_FDS, RESIDENT_BYTES, START_TIME, VIRTUAL_BYTES};
use super::text::Text;

pub(super) fn write(text: &mut Text) {
    let process = fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|stat| Process::parse(&stat));
    let process = process.as_ref();
    let mut put = |family, value: Option<f64>| {
        let mut samples = text.family(family);
        if let Some(value) = value {
            samples.value(&[], value);
        }
    };
    put(&CPU, process.map(|process| process.cpu_seconds));
    put(&OPEN_FDS, open_files());
    put(&MAX_FDS, getrlimit(Resource::Nofile).current.map(number));
    put(&VIRTUAL_BYTES, process.map(|process| process.virtual_bytes));
    put(
        &RESIDENT_BYTES,
        process.map(|process| process.resident_bytes),
    );
    let started = process.and_then(|process| {
        let stat = fs::read_to_string("/proc/stat").ok()?;
        let booted = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        Some(booted.trim().parse::<f64>().ok()? + process.started_after_boot_seconds)
    });
    put(&START_TIME, started);
}

/// The folder's size is their number since Linux 6.2; before it has to be read.
fn open_files() -> Option<f64> {
    let folder = fs::metadata("/proc/self/fd").ok()?.len();
    if folder > 0 {
        return Some(number(folder));
    }
    let files = fs::read_dir("/proc/self/fd").ok()?.count();
    // Without the one that reads the folder.
    Some(number(u64::try_from(files).ok()?.saturating_sub(1)))
}

struct Process {
    cpu_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
    started_after_boot_seconds: f64,
}

impl Process {
    /// `/proc/self/stat`, see `proc_pid_stat(5)`.
    fn parse(stat: &str) -> Option<Self> {
        // The second field, the name, may hold spaces and parentheses.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // The manual counts from 1 and from the first field; here begins the third.
        let field = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
        let seconds = |ticks| number(ticks) / number(clock_ticks_per_second());
        Some(Self {
            cpu_seconds: seconds(field(14)? + field(15)?),
            started_after_boot_seconds: seconds(field(22)?),
            virtual_bytes: number(field(23)?),
            resident_bytes: number(field(24)? * page_size() as u64),
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "below 2^53 it is exact")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_moves_no_field() {
        let fields: Vec<String> = (4..=30).map(|field: u32| field.to_string()).collect();
        let stat = format!("1 (a b) c) R {}", fields.join(" "));
        let process = Process::parse(&stat).expect("a line of stat");
        assert!((process.virtual_bytes - 23.0).abs() < 0.1);
        assert!((process.resident_bytes - 24.0 * number(page_size() as u64)).abs() < 0.1);
        let ticks = number(clock_ticks_per_second());
        assert!((process.cpu_seconds * ticks - 29.0).abs() < 0.1);
    }

    #[test]
    fn this_process_has_memory_and_files() {
        let mut text = Text::default();
        write(&mut text);
        let text = text.finish();
        for name in ["process_resident_memory_bytes ", "process_open_fds "] {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let value: f64 = line.expect(name).parse().expect("a number");
            assert!(value > 0.0, "{name}");
        }
    }
}
