//! A process whose writes to BPF maps the kernel answers as a test wants it:
//! a seccomp filter has the kernel ask here before each of them
//! (`SECCOMP_RET_USER_NOTIF`, `Documentation/userspace-api/seccomp_filter.rst`).

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// `BPF_MAP_UPDATE_ELEM` (`include/uapi/linux/bpf.h`).
const UPDATE: u32 = 2;
/// `struct seccomp_data`: the call's number, and the low word of its first
/// argument on a little-endian machine.
const NUMBER_AT: u32 = 0;
const COMMAND_AT: u32 = 16;

nix::ioctl_readwrite!(
    /// `SECCOMP_IOCTL_NOTIF_RECV` (`include/uapi/linux/seccomp.h`).
    receive,
    b'!',
    0,
    libc::seccomp_notif
);
nix::ioctl_readwrite!(
    /// `SECCOMP_IOCTL_NOTIF_SEND`.
    send,
    b'!',
    1,
    libc::seccomp_notif_resp
);

/// Has the command, once started, ask before each write to a map: `answer` gets
/// the kernel's id of the map, and says which error the write meets; none lets
/// the kernel do it. Needs root.
///
/// # Errors
/// Where there are no sockets.
pub fn supervise(
    command: &mut Command,
    answer: impl FnMut(u32) -> Option<Errno> + Send + 'static,
) -> io::Result<()> {
    let (here, mut there) = UnixStream::pair()?;
    // SAFETY: between fork and exec there are system calls only, on memory of
    // this process that is there already.
    unsafe {
        command.pre_exec(move || {
            let listener = filter()?;
            let mut told = [0; 8];
            told[..4].copy_from_slice(&std::process::id().to_ne_bytes());
            told[4..].copy_from_slice(&listener.to_ne_bytes());
            there.write_all(&told)?;
            // The listener closes with exec: it is taken over before.
            there.read_exact(&mut told[..1])
        });
    }
    std::thread::spawn(move || {
        // Ends with the process; whoever waits for that process sees why.
        let _ = serve(here, answer);
    });
    Ok(())
}

/// Installs the filter in this process; its listener.
fn filter() -> io::Result<i32> {
    let load = |at| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    // Both lead past the other comparison to the last step, which allows.
    let equal = |value, otherwise| {
        step(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            otherwise,
            value,
        )
    };
    let end = |value| step(libc::BPF_RET | libc::BPF_K, 0, 0, value);
    let mut steps = [
        load(NUMBER_AT),
        equal(libc::SYS_bpf as u32, 3),
        load(COMMAND_AT),
        equal(UPDATE, 1),
        end(libc::SECCOMP_RET_USER_NOTIF),
        end(libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the program points to as many steps as it says, and the kernel
    // copies them.
    let listener = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    Ok(Errno::result(listener)? as i32)
}

const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// Answers until the process is gone.
fn serve(
    mut there: UnixStream,
    mut answer: impl FnMut(u32) -> Option<Errno>,
) -> anyhow::Result<()> {
    let mut told = [0; 8];
    there.read_exact(&mut told)?;
    let [a, b, c, d, listener @ ..] = told;
    let process = i32::from_ne_bytes([a, b, c, d]);
    let listener = take_over(process, i32::from_ne_bytes(listener))?;
    there.write_all(&[0])?;
    drop(there);
    loop {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::NONE)?;
        let events = ready[0].revents().unwrap_or(PollFlags::empty());
        if !events.contains(PollFlags::POLLIN) {
            return Ok(());
        }
        // SAFETY: plain integers; zero is a value, and what the kernel wants.
        let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is the one that the call fills.
        if unsafe { receive(listener.as_raw_fd(), &raw mut asked) }.is_err() {
            // The caller was killed meanwhile.
            continue;
        }
        // Whom nobody can look at has no map either.
        let errno = map_id(&asked).ok().and_then(&mut answer);
        let mut said = libc::seccomp_notif_resp {
            id: asked.id,
            val: 0,
            error: errno.map_or(0, |errno| -(errno as i32)),
            flags: match errno {
                Some(_) => 0,
                None => libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            },
        };
        // SAFETY: the structure is the one that the call reads. It fails where
        // the caller was killed meanwhile.
        let _ = unsafe { send(listener.as_raw_fd(), &raw mut said) };
    }
}

/// A descriptor of another process as one of our own.
fn take_over(process: i32, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: two calls on numbers; what they give back is ours alone.
    unsafe {
        let other = Errno::result(libc::syscall(libc::SYS_pidfd_open, process, 0))?;
        let other = OwnedFd::from_raw_fd(other as i32);
        let found = libc::syscall(libc::SYS_pidfd_getfd, other.as_raw_fd(), number, 0);
        Ok(OwnedFd::from_raw_fd(Errno::result(found)? as i32))
    }
}

/// The map that a call is about.
fn map_id(asked: &libc::seccomp_notif) -> anyhow::Result<u32> {
    let mut number = [0; 4];
    // The first field of `union bpf_attr` is the map's descriptor.
    let memory = File::open(format!("/proc/{}/mem", asked.pid))?;
    memory.read_exact_at(&mut number, asked.data.args[1])?;
    let number = u32::from_ne_bytes(number);
    let text = std::fs::read_to_string(format!("/proc/{}/fdinfo/{number}", asked.pid))?;
    let line = text.lines().find_map(|line| line.strip_prefix("map_id:"));
    let id = line.ok_or_else(|| anyhow::anyhow!("descriptor {number} is no map"))?;
    Ok(id.trim().parse()?)
}
