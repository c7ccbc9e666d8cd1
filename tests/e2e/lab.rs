//! The lab as users run it, and what is left when it is cut short.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::world::binary;

/// The workspace's commands, built beside these tests.
fn xtask() -> PathBuf {
    let path = binary().with_file_name("xtask");
    assert!(path.exists(), "{} is missing: cargo build", path.display());
    path
}

fn start() -> Child {
    Command::new(xtask())
        .args(["run", "--once"])
        .env("OCS_LB_BINARY", binary())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

fn directory(id: u32) -> PathBuf {
    std::env::temp_dir().join(format!("ocs-lb-lab-{id}"))
}

/// Interfaces of this host, which no lab touches.
fn links() -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir("/sys/class/net")
        .expect("sysfs")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    names
}

/// Processes that have a lab's directory among their arguments.
fn processes(directory: &Path) -> usize {
    let needle = directory.to_str().expect("a plain path").as_bytes();
    std::fs::read_dir("/proc")
        .expect("procfs")
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .filter(|line| line.windows(needle.len()).any(|part| part == needle))
        .count()
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            return status;
        }
        if Instant::now() > end {
            child.kill().expect("it runs");
            panic!("still running 10 s after the signal");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn gone_within_a_second(what: &str, mut is_gone: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(1);
    while !is_gone() {
        assert!(Instant::now() < end, "{what} is left");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
#[ignore = "needs root"]
fn every_step_passes() {
    let mut child = start();
    let end = Instant::now() + Duration::from_secs(90);
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours") {
            break status;
        }
        assert!(Instant::now() < end, "not done in 90 s");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(status.success(), "{status}");
    assert!(!directory(child.id()).exists());
}

#[test]
#[ignore = "needs root"]
fn a_signal_at_any_moment_leaves_nothing() {
    let before = links();
    for delay in [30, 150, 400, 900, 1500, 2500, 5000] {
        for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
            let mut child = start();
            std::thread::sleep(Duration::from_millis(delay));
            kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it runs");
            let status = wait(&mut child);
            // Before the lab's own handler is in place the signal itself ends it.
            use std::os::unix::process::ExitStatusExt as _;
            let ended = status.code() == Some(code) || status.signal() == Some(signal as i32);
            assert!(ended, "{signal} after {delay} ms: {status}");
            let directory = directory(child.id());
            gone_within_a_second("a process", || processes(&directory) == 0);
            assert!(!directory.exists(), "{signal} after {delay} ms");
            assert_eq!(links(), before, "{signal} after {delay} ms");
            assert!(!Path::new("/sys/fs/bpf/ocs-lb").exists());
        }
    }
}

#[test]
#[ignore = "needs root"]
fn what_a_kill_leaves_the_next_run_removes() {
    for delay in [200, 1500, 3000] {
        let mut child = start();
        std::thread::sleep(Duration::from_millis(delay));
        child.kill().expect("it runs");
        child.wait().expect("a child of ours");
        let directory = directory(child.id());
        gone_within_a_second("a process", || processes(&directory) == 0);
        let status = Command::new(xtask())
            .arg("clean")
            .stdout(Stdio::null())
            .status()
            .expect("it starts");
        assert!(status.success());
        assert!(!directory.exists(), "after {delay} ms");
    }
}
