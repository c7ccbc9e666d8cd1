//! What the datapath tells, from its ring buffer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use aya::maps::{MapData, RingBuf};
use ocs_lb_common::abi::{Event, EventKind, read};
use ocs_lb_common::address::V4;
use tokio::io::unix::AsyncFd;

/// Events taken at once.
const AT_ONCE: usize = 1024;

/// A neighbour whose MAC the datapath misses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighborNeeded {
    /// Interface index.
    pub ifindex: u32,
    /// Its IP address.
    pub address: Ipv4Addr,
}

/// The reading end of the ring.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Events {
    /// Takes the ring.
    ///
    /// # Errors
    /// Where the runtime cannot poll it.
    pub fn new(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: the ring owns its descriptor and keeps it open as long as
        // it lives, which is as long as the registration.
        let ring = unsafe { AsyncFd::register(ring) }?;
        Ok(Self { ring })
    }

    /// Waits for events and takes what is there, each neighbour once and not
    /// more than can be dealt with before other work.
    ///
    /// # Errors
    /// The poll's.
    pub async fn next(&mut self) -> std::io::Result<BTreeSet<NeighborNeeded>> {
        let mut guard = self.ring.readable_mut().await?;
        let mut events = BTreeSet::new();
        for _ in 0..AT_ONCE {
            let Some(item) = guard.get_inner_mut().next() else {
                guard.clear_ready();
                break;
            };
            events.extend(decode(&item));
        }
        Ok(events)
    }
}

/// An event from its bytes; `None` for a kind that this version does not know.
fn decode(bytes: &[u8]) -> Option<NeighborNeeded> {
    let event: Event<V4> = read(bytes)?;
    if EventKind::from_number(event.kind)? != EventKind::NeighborNeeded {
        return None;
    }
    Some(NeighborNeeded {
        ifindex: event.ifindex,
        address: Ipv4Addr::from(event.client.source.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events() {
        let mut bytes = [0u8; size_of::<Event<V4>>()];
        bytes[0] = EventKind::NeighborNeeded as u8;
        bytes[8..12].copy_from_slice(&7u32.to_ne_bytes());
        bytes[16..20].copy_from_slice(&[192, 0, 2, 9]);
        let needed = NeighborNeeded {
            ifindex: 7,
            address: Ipv4Addr::new(192, 0, 2, 9),
        };
        assert_eq!(decode(&bytes), Some(needed));
        assert_eq!(decode(&bytes[..8]), None, "too short");
        bytes[0] = 99;
        assert_eq!(decode(&bytes), None, "a kind from the future");
    }
}
