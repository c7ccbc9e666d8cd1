//! What the datapath tells, from its ring buffer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use aya::maps::{MapData, RingBuf};
use ocs_lb_common::abi::{Event, EventKind};
use ocs_lb_common::address::V4;
use tokio::io::unix::AsyncFd;
use tokio::time::{Interval, MissedTickBehavior};

use super::record::read;

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

/// Events taken at once.
#[derive(Debug, Default, PartialEq)]
pub struct Batch {
    /// Neighbours that are needed, each once.
    pub needed: BTreeSet<NeighborNeeded>,
    /// All of them, in the order of the ring.
    pub events: Vec<Event<V4>>,
}

impl Batch {
    /// Takes what the ring has; whether there may be more.
    fn fill(&mut self, ring: &mut RingBuf<MapData>) -> bool {
        for _ in 0..AT_ONCE {
            let Some(item) = ring.next() else {
                return false;
            };
            self.take(&item);
        }
        true
    }

    /// Takes an event from its bytes; one of a kind that this version does not
    /// know is left out.
    fn take(&mut self, bytes: &[u8]) {
        let Some(event) = read::<Event<V4>>(bytes) else {
            return;
        };
        match EventKind::from_number(event.kind) {
            None => return,
            Some(EventKind::NeighborNeeded) => {
                self.needed.insert(NeighborNeeded {
                    ifindex: event.ifindex,
                    address: Ipv4Addr::from(event.client.source.0),
                });
            }
            Some(_) => {}
        }
        self.events.push(event);
    }
}

/// Time between two looks: the datapath wakes nobody for events that can wait.
const LOOK: Duration = Duration::from_millis(100);

/// The reading end of the ring.
pub struct Events {
    ring: AsyncFd<RingBuf<MapData>>,
    look: Interval,
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
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self { ring, look })
    }

    /// Waits for events and takes what is there, not more than can be dealt
    /// with before other work.
    ///
    /// # Errors
    /// The poll's.
    pub async fn next(&mut self) -> std::io::Result<Batch> {
        let mut batch = Batch::default();
        tokio::select! {
            guard = self.ring.readable_mut() => {
                let mut guard = guard?;
                if !batch.fill(guard.get_inner_mut()) {
                    guard.clear_ready();
                }
            }
            _ = self.look.tick() => {
                batch.fill(self.ring.get_mut());
            }
        }
        Ok(batch)
    }
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
        let mut batch = Batch::default();
        batch.take(&bytes);
        batch.take(&bytes);
        assert_eq!(batch.needed, BTreeSet::from([needed]));
        for kind in EventKind::ALL {
            bytes[0] = kind as u8;
            batch.take(&bytes);
        }
        assert_eq!(batch.events.len(), 2 + EventKind::ALL.len());
        assert_eq!(batch.needed.len(), 1);

        batch.take(&bytes[..8]);
        bytes[0] = 99;
        batch.take(&bytes);
        let taken = batch.events.len();
        assert_eq!(taken, 2 + EventKind::ALL.len(), "too short, too new");
    }
}
