//! Blocking TCP with a chosen source, timed. Every function works in the
//! namespace of the calling thread.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Longest wait for a connection, and for each read and write after it.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Connects from an address and a port (0: any); how long it took.
///
/// # Errors
/// The socket's.
pub fn connect(source: (Ipv4Addr, u16), to: SocketAddr) -> io::Result<(TcpStream, Duration)> {
    connect_with(source, to, &[])
}

/// The same with IP options (RFC 791 section 3.1) in every packet.
///
/// # Errors
/// The socket's, where the kernel does not take the options.
pub fn connect_with(
    source: (Ipv4Addr, u16),
    to: SocketAddr,
    options: &[u8],
) -> io::Result<(TcpStream, Duration)> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if !options.is_empty() {
        set_options(&socket, options)?;
    }
    socket.bind(&SockAddr::from(SocketAddr::from(source)))?;
    let start = Instant::now();
    socket.connect_timeout(&SockAddr::from(to), PATIENCE)?;
    let took = start.elapsed();
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    socket.set_tcp_nodelay(true)?;
    Ok((socket.into(), took))
}

fn set_options(socket: &Socket, options: &[u8]) -> io::Result<()> {
    use nix::libc::{IP_OPTIONS, IPPROTO_IP, setsockopt, socklen_t};

    // SAFETY: the pointer and the length are those of one slice.
    let result = unsafe {
        setsockopt(
            socket.as_raw_fd(),
            IPPROTO_IP,
            IP_OPTIONS,
            options.as_ptr().cast(),
            options.len() as socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Has the end of a connection be a RST.
///
/// # Errors
/// The socket's.
pub fn reset(stream: TcpStream) -> io::Result<()> {
    Socket::from(stream).set_linger(Some(Duration::ZERO))
}

/// A listener with a long queue.
///
/// # Errors
/// Where the port is taken.
pub fn listen(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(SocketAddr::from((address, port))))?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// Writes a file below `/proc/sys/net/ipv4/`.
///
/// # Errors
/// The file's.
pub fn sysctl(name: &str, value: &str) -> io::Result<()> {
    std::fs::write(format!("/proc/sys/net/ipv4/{name}"), value)
}
