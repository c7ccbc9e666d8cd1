//! Ctrl-C and SIGTERM at any moment leave nothing behind.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// Process id of the balancer; 0 while there is none.
static BALANCER: AtomicI32 = AtomicI32::new(0);

/// Whether a signal has come: the process is about to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Leaves the end of the process to the signal that has come, if one has:
/// what fails from then on fails because of it.
pub fn yield_to_signal() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Names the process that a signal ends first.
pub fn balancer(id: u32) {
    BALANCER.store(id.cast_signed(), Ordering::SeqCst);
}

/// From now on SIGINT and SIGTERM end the balancer, remove the directory and
/// end this process; namespaces and links go with it.
///
/// # Errors
/// Where signals cannot be watched.
pub fn watch(scratch: &Path) -> anyhow::Result<()> {
    let scratch = scratch.to_path_buf();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    // Registered here, before anything can be left behind.
    let _guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    drop(_guard);
    std::thread::spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        });
        INTERRUPTED.store(true, Ordering::SeqCst);
        stop_balancer();
        // It may be gone already: the main thread may be at its end as well.
        let _ = std::fs::remove_dir_all(&scratch);
        std::process::exit(code);
    });
    Ok(())
}

/// Asks the balancer to end and gives it a moment; what goes on after that is
/// killed by the kernel when this process ends.
fn stop_balancer() {
    let id = BALANCER.load(Ordering::SeqCst);
    if id == 0 {
        return;
    }
    let stat = format!("/proc/{id}/stat");
    let runs = || {
        std::fs::read_to_string(&stat).is_ok_and(|stat| {
            // The state follows the name, which may hold anything but ')' last.
            !stat
                .rsplit(')')
                .next()
                .is_some_and(|rest| rest.starts_with(" Z"))
        })
    };
    // It may have ended by itself.
    let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
    let end = Instant::now() + Duration::from_secs(3);
    while runs() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
}
