//! Anonymous network namespaces.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace without a name: it lives as long as this value or a
/// process inside.
#[derive(Clone)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
    /// Dropped with the last of them, which ends its thread.
    _resident: Arc<Sender<()>>,
}

impl Namespace {
    /// Makes one with its loopback up and IPv6 off, so that neither duplicate
    /// address detection nor router solicitations disturb a test.
    ///
    /// # Errors
    /// Without the capability (root), or where the kernel refuses.
    pub fn new() -> anyhow::Result<Self> {
        let (made, is_made) = channel();
        let (resident, end) = channel::<()>();
        // Someone stays inside, as on a host: so who has the far end of a veth
        // finds the namespace.
        std::thread::spawn(move || {
            if made.send(unshared()).is_ok() {
                // No one sends; it ends with the sender.
                let _ = end.recv();
            }
        });
        let fd = is_made.recv()?.context("a network namespace needs root")?;
        let namespace = Self {
            fd: Arc::new(fd),
            _resident: Arc::new(resident),
        };
        namespace.block_on(|| crate::link::up("lo"))?;
        Ok(namespace)
    }

    /// Runs a closure on a thread of its own inside.
    ///
    /// # Errors
    /// Where the namespace cannot be entered.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| -> nix::Result<T> {
                setns(self.fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result.context("namespace not entered"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a future to its end on a runtime of its own inside. The future is
    /// made there, so that its sockets belong there.
    ///
    /// # Errors
    /// The future's, or where the namespace cannot be entered.
    pub fn block_on<T, F>(&self, make: impl FnOnce() -> F + Send) -> anyhow::Result<T>
    where
        T: Send,
        F: Future<Output = anyhow::Result<T>>,
    {
        self.run(|| runtime()?.block_on(make()))?
    }

    /// The same on a thread that goes on.
    pub fn spawn<T, F>(
        &self,
        make: impl FnOnce() -> F + Send + 'static,
    ) -> JoinHandle<anyhow::Result<T>>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>>,
    {
        let fd = Arc::clone(&self.fd);
        std::thread::spawn(move || {
            setns(fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
            runtime()?.block_on(make())
        })
    }

    /// A command that will run inside and end with this process.
    ///
    /// The kernel ties that end to the thread that starts the command, so
    /// start it from one that lives as long (the main thread).
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let fd = Arc::clone(&self.fd);
        // SAFETY: between fork and exec only these two system calls are made,
        // both async-signal-safe.
        unsafe {
            command.pre_exec(move || {
                setns(fd.as_fd(), CloneFlags::CLONE_NEWNET)?;
                nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
                Ok(())
            });
        }
        command
    }

    /// The open file that keeps it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The same as a number.
    pub fn raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// Where `nsenter --net=` finds it while this process lives.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.raw_fd())
    }
}

/// A new namespace for the calling thread.
fn unshared() -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    let fd = File::open("/proc/thread-self/ns/net")?.into();
    // Absent where the kernel was built without IPv6.
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1");
    let _ = std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    Ok(fd)
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
