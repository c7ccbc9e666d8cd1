//! Programs of others on a link: they let everything pass. Every function works
//! in the namespace of the calling thread.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use nix::libc;

/// A program that is attached while this lives.
pub struct Other {
    /// Its id.
    pub id: u32,
    _program: OwnedFd,
    _link: OwnedFd,
}

/// An XDP program with the name `lets_pass`.
///
/// # Errors
/// The kernel's.
pub fn xdp_pass(link: &str) -> io::Result<Other> {
    const BPF_PROG_TYPE_XDP: u32 = 6;
    const BPF_XDP: u32 = 37;
    const XDP_PASS: i32 = 2;
    attach(link, BPF_PROG_TYPE_XDP, BPF_XDP, XDP_PASS)
}

/// A program at the ingress of traffic control with the name `lets_pass`.
///
/// # Errors
/// The kernel's.
pub fn tcx_pass(link: &str) -> io::Result<Other> {
    const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
    const BPF_TCX_INGRESS: u32 = 46;
    const TCX_NEXT: i32 = -1;
    attach(link, BPF_PROG_TYPE_SCHED_CLS, BPF_TCX_INGRESS, TCX_NEXT)
}

/// Words of `union bpf_attr`.
type Attributes = [u64; 18];

fn attach(link: &str, kind: u32, place: u32, answer: i32) -> io::Result<Other> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    const BPF_LINK_CREATE: libc::c_int = 28;
    let ifindex = nix::net::if_::if_nametoindex(link)?;
    // mov r0, ANSWER; exit
    let code: [u64; 2] = [0xb7 | u64::from(answer.cast_unsigned()) << 32, 0x95];
    let license = c"GPL";
    let mut load: Attributes = [0; 18];
    load[0] = u64::from(kind) | (code.len() as u64) << 32;
    load[1] = code.as_ptr() as u64;
    load[2] = license.as_ptr() as u64;
    // prog_name, at 48.
    load[6] = u64::from_ne_bytes(*b"lets_pas");
    load[7] = u64::from_ne_bytes(*b"s\0\0\0\0\0\0\0");
    // expected_attach_type, at 68.
    load[8] = if kind == 6 { u64::from(place) << 32 } else { 0 };
    let program = bpf(BPF_PROG_LOAD, &load)?;
    let mut info = [0u32; 64];
    let mut ask: Attributes = [0; 18];
    ask[0] = u64::from(program.as_raw_fd().cast_unsigned()) | (size_of_val(&info) as u64) << 32;
    ask[1] = info.as_mut_ptr() as u64;
    // No descriptor comes back, but 0.
    raw(BPF_OBJ_GET_INFO_BY_FD, &ask)?;
    let mut create: Attributes = [0; 18];
    create[0] = u64::from(program.as_raw_fd().cast_unsigned()) | u64::from(ifindex) << 32;
    create[1] = u64::from(place);
    let link = bpf(BPF_LINK_CREATE, &create)?;
    Ok(Other {
        id: info[1],
        _program: program,
        _link: link,
    })
}

fn bpf(command: libc::c_int, attributes: &Attributes) -> io::Result<OwnedFd> {
    let fd = raw(command, attributes)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn raw(command: libc::c_int, attributes: &Attributes) -> io::Result<i32> {
    // SAFETY: the attributes are as long as told, and what they point to
    // outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of::<Attributes>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    i32::try_from(result).map_err(io::Error::other)
}
