//! Tells both sides of a killed flow that it is over.
//!
//! What is sent is decided here without a map or a socket; the owner of the
//! maps looks the next hops up, [`Socket`] sends.

mod socket;

pub use socket::Socket;

use std::collections::BTreeMap;

use ocs_lb_common::abi::{FlowKey, Kill, NextHop};
use ocs_lb_common::address::V4;
use ocs_lb_common::reset::{IPV4_LEN, frame_ipv4};

/// A reset to one side, before its next hop is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reset {
    /// Index of the next hop.
    pub hop: u16,
    /// Tuple of the reset, as if the other side had sent it.
    pub key: FlowKey<V4>,
    /// Its sequence number.
    pub seq: u32,
}

/// The resets to the client and to the backend of a killed flow.
pub fn resets(kill: &Kill<V4>) -> [Reset; 2] {
    [
        Reset {
            hop: kill.client_hop,
            key: kill.client.reversed(),
            seq: kill.backend_seq,
        },
        Reset {
            hop: kill.backend_hop,
            key: kill.backend,
            seq: kill.client_seq,
        },
    ]
}

/// The interface and the frame of a reset; `None` where its next hop is not
/// known.
pub fn frame(reset: &Reset, hop: &NextHop) -> Option<(u32, [u8; IPV4_LEN])> {
    if reset.hop == 0 || hop.valid == 0 {
        return None;
    }
    let frame = frame_ipv4(&hop.destination, &hop.source, &reset.key, reset.seq);
    Some((hop.ifindex, frame))
}

/// What became of resets. One that was not sent is not lost: the datapath
/// answers the side when it sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handed to the kernel.
    pub sent: u64,
    /// No MAC is known for their next hop.
    pub no_next_hop: u64,
    /// The kernel refused them.
    pub failed: u64,
    /// The kernel's words, by how often.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    /// Resets that their side did not get.
    pub fn unsent(&self) -> u64 {
        self.no_next_hop + self.failed
    }

    /// Adds what another counted.
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.no_next_hop += other.no_next_hop;
        self.failed += other.failed;
        for (error, times) in other.errors {
            *self.errors.entry(error).or_default() += times;
        }
    }

    /// The kernel's words and how often each.
    pub fn reasons(&self) -> String {
        let each = self.errors.iter().map(|(e, times)| format!("{e} x{times}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

/// Sends both resets of each flow through the next hops that `hop` knows.
pub fn tell(
    kills: &[Kill<V4>],
    hop: impl Fn(u16) -> Option<NextHop>,
    send: impl Fn(u32, &[u8]) -> std::io::Result<()>,
) -> Tally {
    let mut tally = Tally::default();
    for reset in kills.iter().flat_map(resets) {
        let known = hop(reset.hop).and_then(|hop| frame(&reset, &hop));
        let Some((ifindex, bytes)) = known else {
            tally.no_next_hop += 1;
            continue;
        };
        match send(ifindex, &bytes) {
            Ok(()) => tally.sent += 1,
            Err(error) => {
                tally.failed += 1;
                *tally.errors.entry(error.to_string()).or_default() += 1;
            }
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;

    use ocs_lb_common::address::Be16;
    use ocs_lb_common::parse::parse_ipv4;
    use ocs_lb_common::wire::{Flags, SliceFrame};

    use super::*;

    const CLIENT: V4 = V4([203, 0, 113, 9]);
    const VIP: V4 = V4([192, 0, 2, 1]);
    const SNAT: V4 = V4([198, 51, 100, 1]);
    const BACKEND: V4 = V4([198, 51, 100, 10]);

    fn kill() -> Kill<V4> {
        Kill {
            client: FlowKey::tcp(CLIENT, Be16::new(40_000), VIP, Be16::new(443)),
            backend: FlowKey::tcp(SNAT, Be16::new(2000), BACKEND, Be16::new(4443)),
            client_seq: 111,
            backend_seq: 222,
            backend_hop: 3,
            client_hop: 4100,
            ..Kill::default()
        }
    }

    fn hop(index: u16) -> Option<NextHop> {
        Some(NextHop {
            destination: [2, 0, 0, 0, 0, index as u8],
            valid: 1,
            source: [2, 0, 0, 0, 1, index as u8],
            ifindex: u32::from(index),
            ..NextHop::default()
        })
    }

    #[test]
    fn each_side_hears_from_the_other() {
        let frames = RefCell::new(Vec::new());
        let tally = tell(&[kill()], hop, |ifindex, bytes| {
            frames.borrow_mut().push((ifindex, bytes.to_vec()));
            Ok(())
        });
        assert_eq!((tally.sent, tally.unsent()), (2, 0));
        let mut frames = frames.into_inner();
        let mut parsed = frames.iter_mut().map(|(ifindex, bytes)| {
            let packet = parse_ipv4(&SliceFrame(bytes)).expect("a packet");
            assert_eq!(packet.segment.flags, Flags(Flags::RST));
            (*ifindex, packet.key, packet.segment.seq)
        });
        let to_client = FlowKey::tcp(VIP, Be16::new(443), CLIENT, Be16::new(40_000));
        assert_eq!(parsed.next(), Some((4100, to_client, 222)));
        assert_eq!(parsed.next(), Some((3, kill().backend, 111)));
        drop(parsed);
        assert_eq!(frames[1].1[..12], [2, 0, 0, 0, 0, 3, 2, 0, 0, 0, 1, 3]);
    }

    #[test]
    fn what_is_not_sent_is_counted() {
        let invalid = |index| {
            Some(NextHop {
                valid: 0,
                ..hop(index)?
            })
        };
        let mut all = tell(&[kill(), kill()], invalid, |_, _| Ok(()));
        assert_eq!((all.sent, all.no_next_hop), (0, 4));
        let nowhere = Kill {
            client_hop: 0,
            ..kill()
        };
        let full = |ifindex, _: &[u8]| match ifindex {
            3 => Err(io::Error::from_raw_os_error(105)),
            _ => Ok(()),
        };
        all.add(tell(&[nowhere, kill()], hop, full));
        assert_eq!((all.sent, all.no_next_hop, all.failed), (1, 5, 2));
        assert_eq!(all.unsent(), 7);
        assert!(all.reasons().ends_with("x2"), "{}", all.reasons());
    }
}
