//! What the controller itself costs, under the names that every Prometheus
//! client library uses.

use std::fs;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit};
use nix::time::{ClockId, clock_gettime};

/// Ticks a second in `/proc`: the kernel's USER_HZ, fixed for userspace.
const USER_HZ: f64 = 100.0;

/// One look at this process. A value that cannot be read is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    /// User and system time since its start, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory in RAM, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// File descriptors it may open (soft limit).
    pub max_fds: Option<u64>,
    /// Wall clock of its start, seconds since 1970.
    pub start_seconds: Option<f64>,
}

impl Process {
    /// Reads the figures of the calling process from the kernel.
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).ok();
        Self {
            cpu_seconds: cpu.map(|time| Duration::from(time).as_secs_f64()),
            resident_bytes: status_bytes(&status, "VmRSS:"),
            virtual_bytes: status_bytes(&status, "VmSize:"),
            open_fds: open_fds(),
            max_fds: getrlimit(Resource::RLIMIT_NOFILE)
                .ok()
                .map(|(soft, _)| soft),
            start_seconds: start_seconds(),
        }
    }
}

/// A line such as `VmRSS:     5120 kB`, in bytes.
fn status_bytes(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn open_fds() -> Option<u64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them was the listing's own.
    count.checked_sub(1)
}

fn start_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let kernel = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = kernel
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + start_ticks(&stat)? / USER_HZ)
}

/// Field 22 of `/proc/PID/stat`, proc_pid_stat(5): ticks from boot to start.
fn start_ticks(stat: &str) -> Option<f64> {
    // The name in field 2 may hold spaces and parentheses; the last one ends it.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;

    #[test]
    fn reads_its_own_figures() {
        let process = Process::read();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - process.start_seconds.unwrap();
        assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
        assert!(process.cpu_seconds.is_some_and(|s| s > 0.0));
        assert!(process.resident_bytes <= process.virtual_bytes);
        assert!(process.resident_bytes.is_some_and(|b| b > 100_000));
        assert!(process.open_fds.is_some_and(|n| n >= 3));
        assert!(process.open_fds <= process.max_fds);
    }

    #[test]
    fn odd_names_do_not_shift_the_fields() {
        let fields: Vec<_> = (3..=52).map(|n| n.to_string()).collect();
        let stat = format!("7 (a) b (c) {}", fields.join(" "));
        assert_eq!(start_ticks(&stat), Some(22.0));
    }
}
