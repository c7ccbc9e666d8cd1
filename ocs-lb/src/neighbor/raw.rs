//! Netlink by hand, for the two questions that rtnetlink has no words for.
//! Blocking: the kernel answers such questions before the call returns.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};

/// `NLM_F_REQUEST`, `NLM_F_DUMP` (`include/uapi/linux/netlink.h`).
const REQUEST: u16 = 0x1;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// A socket for one netlink family, in the namespace of the calling thread.
pub(super) struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        )?;
        Ok(Self { fd })
    }

    /// Sends a message of a kind and returns the bodies of all answers.
    ///
    /// # Errors
    /// The kernel's refusal, or an answer that is none.
    pub fn ask(&self, kind: u16, dump: bool, body: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let flags = REQUEST | if dump { DUMP } else { 0 };
        let length = (HEADER + body.len()) as u32;
        let mut message = Vec::with_capacity(length as usize);
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(flags.to_ne_bytes());
        // Sequence and port: one question at a time, and the kernel's choice.
        message.extend([0; 8]);
        message.extend(body);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(self.fd.as_raw_fd(), &message, &kernel, MsgFlags::empty())?;
        let mut answers = Vec::new();
        let mut buffer = vec![0; 65_536];
        loop {
            let length = recv(self.fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some((kind, body, after)) = next(rest) {
                match kind {
                    NLMSG_DONE => return Ok(answers),
                    NLMSG_ERROR => {
                        let code = body.first_chunk().map_or(0, |c| i32::from_ne_bytes(*c));
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                    _ => answers.push(body.to_vec()),
                }
                rest = after;
            }
            if !dump && !answers.is_empty() {
                return Ok(answers);
            }
        }
    }
}

/// Kind and body of the first message, and what follows it.
fn next(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let header = bytes.first_chunk::<HEADER>()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = u16::from_ne_bytes([header[4], header[5]]);
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body, after))
}

/// One attribute (`struct nlattr`), padded.
pub(super) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The attributes of a message, by number.
pub(super) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    /// `NLA_TYPE_MASK`: without the flags for nesting and byte order.
    const TYPE: u16 = 0x3fff;
    let mut found = Vec::new();
    while let Some(header) = bytes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        found.push((u16::from_ne_bytes([header[2], header[3]]) & TYPE, value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back() {
        let mut bytes = attribute(1, b"netdev\0");
        bytes.extend(attribute(0x8002, &7u32.to_ne_bytes()));
        assert_eq!(bytes.len(), 12 + 8);
        let read = attributes(&bytes);
        assert_eq!(read, [(1, &b"netdev\0"[..]), (2, &7u32.to_ne_bytes()[..])]);
        // Cut anywhere, what is whole before the cut is read.
        for length in 0..bytes.len() {
            let read = attributes(&bytes[..length]);
            assert!(
                read.len() <= usize::from(length >= 11),
                "{length}: {read:?}"
            );
        }
    }

    #[test]
    fn messages_are_told_apart() {
        let mut bytes = Vec::new();
        for (kind, body) in [(17u16, &b"abc"[..]), (3, b"")] {
            bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend([0; 10]);
            bytes.extend(body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let (kind, body, rest) = next(&bytes).expect("the first");
        assert_eq!((kind, body), (17, &b"abc"[..]));
        let (kind, body, rest) = next(rest).expect("the second");
        assert_eq!((kind, body.len(), rest.len()), (3, 0, 0));
        assert!(next(&bytes[..10]).is_none());
    }
}
