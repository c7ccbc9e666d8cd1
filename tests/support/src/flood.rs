//! Frames in bulk, and frames seen. Every function works in the namespace of
//! the calling thread.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::libc;

/// Bytes of a SYN without options.
const FRAME: usize = 54;
/// Frames of one system call.
const BATCH: usize = 64;

/// A packet socket on a link that receives everything, or nothing.
///
/// # Errors
/// The socket's.
pub fn packet_socket(link: &str, receive: bool) -> io::Result<OwnedFd> {
    let protocol = if receive { libc::ETH_P_ALL as u16 } else { 0 };
    let name = std::ffi::CString::new(link)?;
    // SAFETY: a string that ends with a zero.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    if index == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain numbers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a fresh descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain numbers, zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the address and its length.
    let bound = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    option(&fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)?;
    option(
        &fd,
        libc::SOL_PACKET,
        libc::PACKET_IGNORE_OUTGOING,
        i32::from(!receive),
    )?;
    // A burst of small frames fills the default at once.
    option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20)?;
    Ok(fd)
}

fn option(fd: &OwnedFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: a number and its length.
    let set = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<i32>() as u32,
        )
    };
    if set < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The next frame, or nothing within `limit`.
///
/// # Errors
/// The socket's.
pub fn receive(fd: &OwnedFd, buffer: &mut [u8], limit: Duration) -> io::Result<Option<usize>> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let wait = limit.as_millis() as i32;
    // SAFETY: one entry.
    if unsafe { libc::poll(&raw mut poll, 1, wait) } <= 0 {
        return Ok(None);
    }
    // SAFETY: the buffer and its length.
    let len = unsafe {
        libc::recv(
            fd.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    };
    match usize::try_from(len) {
        Ok(len) => Ok(Some(len)),
        Err(_) => Ok(None),
    }
}

/// Sends one frame; a full queue loses it, as a wire would.
pub fn send(fd: &OwnedFd, frame: &[u8]) {
    // SAFETY: the buffer and its length.
    unsafe { libc::send(fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
}

/// Where the segments of a flood come from.
#[derive(Debug, Clone, Copy)]
pub enum Sources {
    /// SYNs from random addresses of this /25 and random ports.
    Random(Ipv4Addr),
    /// ACKs of one flow.
    One(SocketAddrV4),
}

/// A TCP segment as a frame.
fn frame(
    macs: [[u8; 6]; 2],
    from: SocketAddrV4,
    to: SocketAddrV4,
    seq: u32,
    syn: bool,
) -> [u8; FRAME] {
    let mut bytes = [0; FRAME];
    bytes[0..6].copy_from_slice(&macs[1]);
    bytes[6..12].copy_from_slice(&macs[0]);
    bytes[12..14].copy_from_slice(&[0x08, 0x00]);
    let ip = &mut bytes[14..34];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&40u16.to_be_bytes());
    ip[8] = 64;
    ip[9] = 6;
    ip[12..16].copy_from_slice(&from.ip().octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    let check = !sum(0, ip);
    ip[10..12].copy_from_slice(&check.to_be_bytes());
    let tcp = &mut bytes[34..54];
    tcp[0..2].copy_from_slice(&from.port().to_be_bytes());
    tcp[2..4].copy_from_slice(&to.port().to_be_bytes());
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[12] = 0x50;
    tcp[13] = if syn { 0x02 } else { 0x10 };
    tcp[14..16].copy_from_slice(&64240u16.to_be_bytes());
    let pseudo = sum(0, &from.ip().octets());
    let pseudo = sum(pseudo, &to.ip().octets());
    let pseudo = sum(pseudo, &[0, 6, 0, 20]);
    let check = !sum(pseudo, tcp);
    tcp[16..18].copy_from_slice(&check.to_be_bytes());
    bytes
}

fn sum(start: u16, bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = u32::from(start) + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Sends segments for a while, `rate` a second (0: as many as it can); how
/// many went out.
///
/// # Errors
/// The socket's.
pub fn flood(
    link: &str,
    macs: [[u8; 6]; 2],
    sources: Sources,
    to: &[SocketAddrV4],
    rate: u64,
    time: Duration,
) -> io::Result<u64> {
    let fd = packet_socket(link, false)?;
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (start, mut sent, mut at) = (Instant::now(), 0u64, 0);
    let mut frames = [[0u8; FRAME]; BATCH];
    while start.elapsed() < time {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as u64;
        if rate != 0 && sent >= due {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        for bytes in &mut frames {
            let value = random();
            let (from, syn) = match sources {
                Sources::One(from) => (from, false),
                Sources::Random(net) => {
                    let [a, b, c, d] = net.octets();
                    let ip = Ipv4Addr::new(a, b, c, d | (value >> 8) as u8 & 0x7f);
                    (SocketAddrV4::new(ip, (value >> 16) as u16 | 1024), true)
                }
            };
            at = (at + 1) % to.len();
            *bytes = frame(macs, from, to[at], (value >> 32) as u32, syn);
        }
        sent += send_batch(&fd, &frames);
    }
    Ok(sent)
}

fn send_batch(fd: &OwnedFd, frames: &[[u8; FRAME]; BATCH]) -> u64 {
    let mut vectors = frames.each_ref().map(|bytes| libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: FRAME,
    });
    let mut messages = vectors.each_mut().map(|vector| {
        // SAFETY: plain numbers and pointers, zero is a value.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_iov = vector;
        message.msg_hdr.msg_iovlen = 1;
        message
    });
    // SAFETY: as many messages, each with one vector that outlives the call.
    let sent = unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0) };
    sent.max(0) as u64
}
