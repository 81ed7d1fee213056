//! The server's settings, each with its reason.
//!
//! Postgres' own are given on the command line, where they outrank the cluster's own
//! files: what the gateway promises does not depend on what somebody wrote
//! into one. Who wants other settings brings a server of their own.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

use super::account::Account;
use super::binaries::Binaries;
use super::folders::Folders;

const MIB: u64 = 1024 * 1024;

/// What holds on every machine.
const FIXED: &[&str] = &[
    // The promises: a commit is on disk when it returns, and stays readable
    // whatever moment the power fails.
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    // Nobody but us: a socket, no network.
    "listen_addresses=",
    "port=5432",
    "unix_socket_permissions=0700",
    "ssl=off",
    // There is no replica and no archive: WAL needs only what a crash does.
    "wal_level=minimal",
    "max_wal_senders=0",
    "archive_mode=off",
    "max_logical_replication_workers=0",
    // The first change of a page after a checkpoint logs all of it, so rare
    // checkpoints mean less WAL; the price is disk space and some minutes of
    // recovery at worst. Spread out, they do not stall commits.
    "checkpoint_timeout=15min",
    "max_wal_size=4GB",
    "min_wal_size=512MB",
    "checkpoint_completion_target=0.9",
    // Gateways share a few connections each; the rest is for people's psql.
    "max_connections=100",
    // Short statements, planned as if the disk were an SSD; compiling one
    // would take longer than running it.
    "random_page_cost=1.1",
    "jit=off",
    // Queue tables die and are reborn all the time.
    "autovacuum=on",
    "autovacuum_naptime=10s",
    // A forgotten transaction would hold every dead row.
    "idle_in_transaction_session_timeout=60s",
    // Fewer page-table misses where the administrator provides for it.
    "huge_pages=try",
    // Nothing that somebody's file may ask for is loaded.
    "shared_preload_libraries=",
    // To standard error, which is `postgres.log`; the gateway keeps it small.
    "logging_collector=off",
    "log_destination=stderr",
    "log_min_messages=warning",
    // Without details, which quote rows.
    "log_error_verbosity=terse",
    "log_line_prefix=%m [%p] %q%a ",
    // What `ps` shows.
    "cluster_name=postrider",
];

/// What glibc's allocator is to keep of the memory that a statement is done with, in
/// bytes: of its heap, and of single allocations. By itself it gives a batch's memory
/// back to the system after each statement, which then clears the same pages for the
/// next one. Other allocators do not read these.
pub(super) const MEMORY: [(&str, &str); 2] = [
    ("MALLOC_TRIM_THRESHOLD_", "67108864"),
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
];

/// Every setting as `name=value`, for `-c`.
pub(super) async fn for_this_machine(
    folders: &Folders,
    account: &Account,
    binaries: &Binaries,
) -> Vec<OsString> {
    let memory = memory_limit();
    let mut settings: Vec<OsString> = FIXED.iter().map(Into::into).collect();
    settings.push(format!("shared_buffers={}MB", shared_buffers_mib(memory)).into());
    // A guess for the planner at what the kernel caches besides.
    settings.push(format!("effective_cache_size={}MB", (memory / 2 / MIB).max(128)).into());
    // lz4 costs a fraction of what the WAL it saves would; not every build
    // has it, and what they have instead is dearer.
    let compression = if has_lz4(folders, account, binaries).await {
        "lz4"
    } else {
        "on"
    };
    settings.push(format!("wal_compression={compression}").into());
    settings.push(socket_setting(&folders.socket));
    settings
}

/// A quarter of the memory, the customary share; not below Postgres' own
/// default, and not above what a queue's hot tables need: bodies are read soon
/// after they are written, or from the kernel's cache.
fn shared_buffers_mib(memory: u64) -> u64 {
    (memory / 4 / MIB).clamp(128, 1024)
}

/// The setting is a list: a path with a comma or a space in it is quoted.
fn socket_setting(folder: &Path) -> OsString {
    let mut setting = b"unix_socket_directories=\"".to_vec();
    for &byte in folder.as_os_str().as_bytes() {
        setting.push(byte);
        if byte == b'"' {
            setting.push(byte);
        }
    }
    setting.push(b'"');
    OsString::from_vec(setting)
}

/// Asks the binary itself: `postgres -C` fails on a value that it does not know.
async fn has_lz4(folders: &Folders, account: &Account, binaries: &Binaries) -> bool {
    let mut command = account.command(&binaries.postgres);
    command
        .arg("-D")
        .arg(&folders.cluster)
        .args(["-C", "wal_compression", "-c", "wal_compression=lz4"])
        .output()
        .await
        .is_ok_and(|output| output.status.success())
}

/// The memory in bytes that we may use: the machine's, or the control group's
/// if that is less.
fn memory_limit() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_memory(&text));
    machine.into_iter().chain(group_limits()).min().unwrap_or(0)
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The limits of our control group and those around it; version 2, and
/// version 1 as a container sees it.
fn group_limits() -> Vec<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = own
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    let root = Path::new("/sys/fs/cgroup");
    let mut files: Vec<_> = Path::new(group)
        .ancestors()
        .map(|ancestor| root.join(ancestor).join("memory.max"))
        .collect();
    files.push(root.join("memory/memory.limit_in_bytes"));
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_buffers_are_a_quarter_within_bounds() {
        assert_eq!(shared_buffers_mib(0), 128);
        assert_eq!(shared_buffers_mib(2048 * MIB), 512);
        assert_eq!(shared_buffers_mib(u64::MAX), 1024);
    }

    #[test]
    fn the_machines_memory_is_read() {
        let meminfo = "MemFree:  1 kB\nMemTotal:       24683964 kB\n";
        assert_eq!(total_memory(meminfo), Some(24_683_964 * 1024));
        assert_eq!(total_memory("nothing"), None);
    }

    #[test]
    fn a_socket_folder_with_odd_characters_is_quoted() {
        let setting = socket_setting(Path::new("/a b,c\"d"));
        assert_eq!(setting, "unix_socket_directories=\"/a b,c\"\"d\"");
    }

    #[test]
    fn nothing_is_set_twice() {
        let mut names: Vec<_> = FIXED
            .iter()
            .filter_map(|setting| Some(setting.split_once('=')?.0))
            .collect();
        assert_eq!(names.len(), FIXED.len());
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FIXED.len());
    }
}
