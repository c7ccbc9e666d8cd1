//! Frames as they are, out of an interface.

use std::io;
use std::mem::size_of;

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Type};

/// Room for frames that wait for their interface: a burst of one walk.
const SEND_BUFFER: usize = 4 << 20;

/// A packet socket that only sends.
pub struct Socket(socket2::Socket);

impl Socket {
    /// Opens it in this thread's network namespace.
    ///
    /// # Errors
    /// The kernel's; it needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        // Protocol 0 receives nothing.
        let socket = socket2::Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        // The kernel gives what its limits allow; less is no failure.
        socket.set_send_buffer_size(SEND_BUFFER)?;
        Ok(Self(socket))
    }

    /// Sends a whole frame, its Ethernet header included; does not wait.
    ///
    /// # Errors
    /// The kernel's: the interface is gone or its queue is full.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        let sent = self.0.send_to(frame, &address(ifindex))?;
        if sent == frame.len() {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::WriteZero, "sent in part"))
    }
}

/// The interface as an address; the frame itself says where it goes.
fn address(ifindex: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is plain integers and fits a `sockaddr_storage`.
    let link = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    link.sll_family = libc::AF_PACKET as u16;
    link.sll_protocol = (libc::ETH_P_IP as u16).to_be();
    link.sll_ifindex = ifindex as i32;
    link.sll_halen = 6;
    // SAFETY: the storage holds an initialised `sockaddr_ll` of this length.
    unsafe { SockAddr::new(storage, size_of::<libc::sockaddr_ll>() as libc::socklen_t) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::time::{Duration, Instant};

    use super::*;

    /// The loopback interface, in every namespace.
    const LO: u32 = 1;

    #[test]
    #[ignore = "needs root"]
    fn a_frame_leaves_as_it_is() {
        let all = Protocol::from(i32::from((libc::ETH_P_IP as u16).to_be()));
        let mut listener =
            socket2::Socket::new(Domain::PACKET, Type::RAW, Some(all)).expect("root");
        let limit = Duration::from_secs(5);
        listener.set_read_timeout(Some(limit)).expect("a timeout");
        let mut frame = [0x5a; 54];
        frame[12..14].copy_from_slice(&[8, 0]);
        let socket = Socket::open().expect("root");
        socket.send(LO, &frame).expect("it is sent");
        let end = Instant::now() + limit;
        let mut seen = [0; 2048];
        loop {
            let len = listener.read(&mut seen).expect("the frame comes");
            if seen[..len] == frame {
                break;
            }
            assert!(Instant::now() < end, "other frames only");
        }
        let error = socket
            .send(u32::MAX >> 1, &frame)
            .expect_err("no interface");
        assert!(error.raw_os_error().is_some(), "{error}");
    }
}
