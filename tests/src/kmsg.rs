//! The kernel's own log: a test of the loaded programs fails where the kernel
//! warned while it ran.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, ensure};
use nix::libc::{EPIPE, O_NONBLOCK};

/// What the kernel writes where it found itself wrong.
const ALARMS: [&str; 9] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "Call Trace",
    "general protection fault",
    "kernel panic",
    "rcu: INFO:",
    "KASAN:",
    "use-after-free",
];

/// The kernel's log from a moment on (`Documentation/ABI/testing/dev-kmsg`).
pub struct KernelLog {
    file: File,
}

impl KernelLog {
    /// Listens from now on.
    ///
    /// # Errors
    /// Where the log cannot be read; it takes root.
    pub fn listen() -> Result<Self> {
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("the log's end")?;
        Ok(Self { file })
    }

    /// Fails where the kernel has warned since [`listen`](Self::listen) or the
    /// last call.
    ///
    /// # Errors
    /// The warnings, or where the log was overwritten before it was read.
    pub fn check(&mut self) -> Result<()> {
        let alarms: Vec<String> = self
            .records()?
            .into_iter()
            .filter(|record| is_alarm(record))
            .collect();
        ensure!(alarms.is_empty(), "the kernel warned:\n{}", alarms.join(""));
        Ok(())
    }

    fn records(&mut self) -> Result<Vec<String>> {
        let mut records = Vec::new();
        // A record and its continuation (`CONSOLE_EXT_LOG_MAX`).
        let mut buffer = vec![0; 8192];
        loop {
            match self.file.read(&mut buffer) {
                Ok(len) => records.push(String::from_utf8_lossy(&buffer[..len]).into_owned()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(records),
                Err(error) if error.raw_os_error() == Some(EPIPE) => {
                    anyhow::bail!("the kernel's log was overwritten before it was read")
                }
                Err(error) => return Err(error).context("/dev/kmsg"),
            }
        }
    }
}

/// Whether a record (`priority,number,time,flags;text`) from the kernel tells
/// of a defect.
fn is_alarm(record: &str) -> bool {
    let Some((head, text)) = record.split_once(';') else {
        return false;
    };
    let priority: u32 = head
        .split(',')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    // The facility lies above the three bits of the level; 0 is the kernel.
    let kernel = priority >> 3 == 0;
    kernel && ALARMS.iter().any(|alarm| text.contains(alarm))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_are_told_from_news() {
        for alarm in [
            "4,1,2,-;WARNING: CPU: 1 PID: 7 at kernel/bpf/verifier.c:1 f+0x1/0x2\n",
            "1,1,2,-;BUG: unable to handle page fault for address: 0\n",
            "3,9,2,-;rcu: INFO: rcu_preempt self-detected stall on CPU\n",
        ] {
            assert!(is_alarm(alarm), "{alarm}");
        }
        for news in [
            "6,1,2,-;eth0: renamed from veth1\n",
            // From a program, not from the kernel.
            "12,1,2,-;systemd: WARNING: something\n",
            "WARNING: no record",
        ] {
            assert!(!is_alarm(news), "{news}");
        }
    }

    #[test]
    #[ignore = "needs root"]
    fn what_is_written_is_read() {
        let mut log = KernelLog::listen().expect("the log");
        let text = "ocs-lb-tests: a line\n";
        std::fs::write("/dev/kmsg", text).expect("a writable log");
        let records = log.records().expect("records");
        assert!(
            records.iter().any(|record| record.ends_with(text)),
            "{records:?}"
        );
        log.check().expect("no warning");
    }
}
