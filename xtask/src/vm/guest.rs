//! A guest: QEMU in software, since many machines cannot nest KVM.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use ocs_lb_test_support::vm::{Line, Trial};

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";

/// Lines of the console that are shown when a guest fails.
const CONSOLE_END: usize = 20;

/// What a guest found out.
pub struct Findings {
    /// Release of its kernel.
    pub kernel: String,
    /// Its programs.
    pub trials: Vec<Trial>,
}

/// QEMU; killed when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // It has mostly ended by itself; then there is nothing to kill.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots a kernel with an initramfs and waits for its findings.
///
/// # Errors
/// A guest that does not start, fails, or takes longer than the limit.
pub fn run(kernel: &Path, image: &Path, limit: Duration) -> anyhow::Result<Findings> {
    let deadline = Instant::now() + limit;
    let mut qemu = start(kernel, image)?;
    let console = qemu.0.stdout.take().context("the guest's console")?;
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                break;
            }
        }
    });

    let mut kernel = String::new();
    let mut trials = Vec::new();
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = match lines.recv_timeout(left) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => {
                bail!("no end after {} s\n{}", limit.as_secs(), end(&seen))
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the guest ended early\n{}", end(&seen))
            }
        };
        match Line::decode(&line)? {
            Some(Line::Kernel(release)) => kernel = release,
            Some(Line::Program(trial)) => trials.push(trial),
            Some(Line::Failed(reason)) => bail!("{reason}"),
            Some(Line::End) => return Ok(Findings { kernel, trials }),
            None => seen.push(line),
        }
    }
}

fn start(kernel: &Path, image: &Path) -> anyhow::Result<Qemu> {
    Command::new(QEMU)
        // QEMU 7.2 leaves wrong flags behind `cmpxchg16b`, which kernels use to
        // allocate: without it one boot in four ended in an oops.
        .args(["-accel", "tcg", "-cpu", "max,-cx16", "-m", "1024"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-serial", "stdio"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(image)
        // A panic restarts the guest at once, which ends QEMU.
        .arg("-no-reboot")
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map(Qemu)
        .context(QEMU)
}

fn end(lines: &[String]) -> String {
    lines[lines.len().saturating_sub(CONSOLE_END)..].join("\n")
}
