//! Step four, for new flows: which backend.

use crate::abi::{Balance, Cluster, Load, MAX_BACKENDS, Slot, StickyValue, TRIED};
use crate::address::Be16;
use crate::redispatch::has;

/// A search for the slot that takes a client by the cluster's algorithm. The
/// caller repeats [`Scan::step`] up to [`Scan::steps`] times, with whatever
/// loop its surroundings allow.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    best_count: u64,
    best_weight: u64,
    /// The best slot so far plus one; 0 is none.
    best: u32,
    round_robin: u32,
    start: u32,
    len: u32,
    /// Roundrobin: weight still to pass over.
    rest: u32,
    pad: u32,
}

impl Scan {
    /// A search after `cursor` choices made before.
    #[inline(always)]
    pub fn new(cluster: &Cluster, cursor: u32) -> Self {
        let len = cluster.backends as u32;
        let mut scan = Self {
            best_count: 0,
            best_weight: 0,
            best: 0,
            round_robin: u32::from(cluster.balance == Balance::RoundRobin as u8),
            start: 0,
            len,
            rest: 0,
            pad: 0,
        };
        if scan.round_robin != 0 {
            if cluster.total_weight == 0 {
                scan.len = 0;
            } else {
                let total = cluster.total_weight as u64;
                scan.rest = (cursor as u64 * cluster.stride as u64 % total) as u32;
            }
        } else if len != 0 {
            // The first slot from the cursor on wins a tie, so ties rotate.
            scan.start = cursor % len;
        }
        scan
    }

    /// How many steps the search takes at most.
    #[inline(always)]
    pub const fn steps(&self) -> u32 {
        self.len
    }

    /// The slot that a step looks at.
    #[inline(always)]
    pub const fn index(&self, step: u32) -> usize {
        let at = self.start.wrapping_add(step);
        let at = if at >= self.len {
            at.wrapping_sub(self.len)
        } else {
            at
        };
        at as usize & (MAX_BACKENDS - 1)
    }

    /// Looks at slot `at`, that of [`Scan::index`]; whether the search is over.
    #[inline(always)]
    pub fn step(&mut self, at: usize, slot: Slot, load: Load) -> bool {
        let at = at as u32;
        let weight = slot.weight as u64;
        if self.round_robin != 0 {
            // In turn, by weight: every run of `total_weight` choices gives
            // each slot exactly its weight; the stride spreads a heavy slot
            // over the run.
            if weight != 0 {
                // Stays the answer where the walk runs out: weights may change
                // while it reads them.
                self.best = at + 1;
            }
            if (self.rest as u64) < weight {
                return true;
            }
            self.rest -= weight as u32;
            return false;
        }
        // Fewest flows, live and half-open, for its weight; compared as
        // `count x other's weight`, without a division. Exact when arrivals
        // are serial; CPUs that choose at the same instant may each be off by
        // one.
        let count = load.flows() as u64;
        let better = self.best == 0 || count * self.best_weight < self.best_count * weight;
        if weight != 0 && better {
            self.best = at + 1;
            self.best_count = count;
            self.best_weight = weight;
        }
        false
    }

    /// The slot found. `None`: no slot has a weight, so no backend is ready.
    #[inline(always)]
    pub const fn slot(&self) -> Option<u16> {
        if self.best == 0 {
            None
        } else {
            Some((self.best - 1) as u16)
        }
    }
}

/// The slot that takes a client, by a plain loop. `load` reads a slot's counts.
pub fn select(cluster: &Cluster, cursor: u32, load: impl Fn(usize) -> Load) -> Option<u16> {
    let mut scan = Scan::new(cluster, cursor);
    for step in 0..scan.steps() {
        let at = scan.index(step);
        if scan.step(at, cluster.slots[at], load(at)) {
            break;
        }
    }
    scan.slot()
}

/// Whether a cluster that holds so many flows lets one more begin.
///
/// Live flows count. Half-open ones do as long as they are few beside the
/// limit: a flood of SYNs must not fill a cluster that it never enters. What
/// they may overshoot is held back at [`promotes`].
#[inline(always)]
pub const fn admits(held: Load, max_connections: u32) -> bool {
    let live = Load { pending: 0, ..held }.flows();
    let pending = Load { live: 0, ..held }.flows();
    let credible = if pending <= max_connections.div_ceil(2) {
        pending
    } else {
        0
    };
    live.saturating_add(credible) < max_connections
}

/// Whether a half-open flow of a cluster with so many live ones may become one.
#[inline(always)]
pub const fn promotes(held: Load, max_connections: u32) -> bool {
    Load { pending: 0, ..held }.flows() < max_connections
}

/// The port a backend is dialled at: its own, or else the service's.
#[inline(always)]
pub fn target_port(own: Be16, service: Be16) -> Be16 {
    if own == Be16::default() { service } else { own }
}

/// A step for roundrobin: about 0.618 of the total and coprime to it, so
/// that stepping visits every unit of weight once before it repeats.
pub const fn stride(total_weight: u32) -> u32 {
    if total_weight < 2 {
        return 1;
    }
    let mut step = (total_weight as u64 * 618 / 1000) as u32;
    if step == 0 {
        step = 1;
    }
    while gcd(step, total_weight) != 1 {
        step += 1;
    }
    step
}

const fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// What a client's sticky entry means for its new flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sticky {
    /// This backend.
    Slot(u16),
    /// There is none that counts: the algorithm chooses.
    None,
    /// Its backend may not be used, and no other may stand in.
    Refused,
}

/// The meaning of a sticky entry now. A backend in `tried` had its chance.
#[inline(always)]
pub fn sticky(
    cluster: &Cluster,
    entry: Option<&StickyValue>,
    now_ns: u64,
    tried: &[u64; TRIED],
) -> Sticky {
    let Some(entry) = entry else {
        return Sticky::None;
    };
    let age_ticks = now_ns.saturating_sub(entry.last_used_ns) >> 20;
    if age_ticks >= cluster.sticky_expire as u64 || entry.backend >= cluster.backends {
        return Sticky::None;
    }
    let slot = cluster.slots[entry.backend as usize & (MAX_BACKENDS - 1)];
    if slot.flags & Slot::STRICT != 0 {
        return Sticky::Refused;
    }
    if slot.flags & Slot::STICKY == 0 || has(tried, entry.backend as usize) {
        return Sticky::None;
    }
    Sticky::Slot(entry.backend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cluster(balance: Balance, weights: &[u16]) -> Cluster {
        let mut cluster = Cluster {
            backends: weights.len() as u16,
            balance: balance as u8,
            total_weight: weights.iter().map(|w| *w as u32).sum(),
            ..Cluster::default()
        };
        cluster.stride = stride(cluster.total_weight);
        for (slot, weight) in cluster.slots.iter_mut().zip(weights) {
            *slot = Slot {
                weight: *weight,
                flags: Slot::STICKY,
            };
        }
        cluster
    }

    fn counts(cluster: &Cluster, arrivals: u32) -> Vec<u32> {
        let mut live = vec![0; cluster.backends as usize];
        for cursor in 0..arrivals {
            let slot = select(cluster, cursor, |at| Load {
                live: live[at],
                pending: 0,
            });
            live[slot.expect("a slot") as usize] += 1;
        }
        live
    }

    #[test]
    fn forty_held_by_one_to_three() {
        let cluster = cluster(Balance::LeastConn, &[1, 3]);
        assert_eq!(counts(&cluster, 40), [10, 30]);
    }

    #[test]
    fn admission() {
        let held = |live, pending| Load { live, pending };
        assert!(admits(held(98, 1), 100));
        assert!(!admits(held(99, 1), 100));
        assert!(admits(held(99, 51), 100), "a flood does not fill it");
        assert!(!admits(held(100, 51), 100));
        assert!(promotes(held(99, 9999), 100));
        assert!(!promotes(held(100, 1), 100));
        assert!(!admits(held(0, 0), 0));
        assert!(
            admits(held(u32::MAX, 3), 100),
            "an instant below zero is none"
        );
        assert_eq!(target_port(Be16::new(0), Be16::new(443)).get(), 443);
        assert_eq!(target_port(Be16::new(4443), Be16::new(443)).get(), 4443);
    }

    #[test]
    fn ties_rotate() {
        let cluster = cluster(Balance::LeastConn, &[1, 1, 1]);
        let picks: Vec<_> = (0..6)
            .map(|cursor| select(&cluster, cursor, |_| Load::default()).expect("a slot"))
            .collect();
        assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn weight_zero_takes_nobody() {
        for balance in [Balance::LeastConn, Balance::RoundRobin] {
            assert_eq!(counts(&cluster(balance, &[0, 2, 0]), 7), [0, 7, 0]);
            assert_eq!(
                select(&cluster(balance, &[0, 0]), 1, |_| Load::default()),
                None
            );
            assert_eq!(select(&cluster(balance, &[]), 1, |_| Load::default()), None);
        }
    }

    #[test]
    fn all_256_slots() {
        let cluster = cluster(Balance::LeastConn, &[1; 256]);
        assert_eq!(counts(&cluster, 512), [2; 256]);
    }

    #[test]
    fn heavy_slots_are_spread() {
        let cluster = cluster(Balance::RoundRobin, &[1, 3]);
        let picks: Vec<_> = (0..4)
            .map(|cursor| select(&cluster, cursor, |_| Load::default()).expect("a slot"))
            .collect();
        assert_eq!(picks.iter().filter(|slot| **slot == 1).count(), 3);
    }

    #[test]
    fn sticky_entries() {
        let mut cluster = cluster(Balance::LeastConn, &[1, 0]);
        cluster.sticky_expire = 100;
        let entry = |backend, last_used_ns| StickyValue {
            last_used_ns,
            backend,
            pad: 0,
            pad2: 0,
        };
        let now = 1000 << 20;
        let untried = [0; TRIED];
        let ask = |cluster: &Cluster, entry: Option<StickyValue>| {
            sticky(cluster, entry.as_ref(), now, &untried)
        };
        assert_eq!(ask(&cluster, None), Sticky::None);
        assert_eq!(ask(&cluster, Some(entry(0, now))), Sticky::Slot(0));
        assert_eq!(
            ask(&cluster, Some(entry(1, now))),
            Sticky::Slot(1),
            "weight 0 still takes its sticky clients"
        );
        assert_eq!(ask(&cluster, Some(entry(0, 901 << 20))), Sticky::Slot(0));
        assert_eq!(
            ask(&cluster, Some(entry(0, 900 << 20))),
            Sticky::None,
            "expired"
        );
        assert_eq!(
            ask(&cluster, Some(entry(2, now))),
            Sticky::None,
            "no such slot"
        );
        let mut tried = untried;
        crate::redispatch::add(&mut tried, 0);
        assert_eq!(
            sticky(&cluster, Some(&entry(0, now)), now, &tried),
            Sticky::None,
            "it refused this flow"
        );
        cluster.slots[0].flags = 0;
        assert_eq!(
            ask(&cluster, Some(entry(0, now))),
            Sticky::None,
            "backend is down"
        );
        cluster.slots[0].flags = Slot::STRICT;
        assert_eq!(
            ask(&cluster, Some(entry(0, now))),
            Sticky::Refused,
            "down, and no other may stand in"
        );
    }

    proptest! {
        /// Serial arrivals never leave one slot ahead of its share by more
        /// than one flow.
        #[test]
        fn leastconn_is_exact(weights in proptest::collection::vec(1u16..=256, 1..20), arrivals in 1u32..500) {
            let cluster = cluster(Balance::LeastConn, &weights);
            let live = counts(&cluster, arrivals);
            for (i, a) in live.iter().enumerate() {
                for (j, b) in live.iter().enumerate() {
                    if *a > 0 {
                        prop_assert!(((*a - 1) as u64) * weights[j] as u64 <= *b as u64 * weights[i] as u64);
                    }
                }
            }
        }

        /// A full turn of roundrobin gives each slot exactly its weight.
        #[test]
        fn round_robin_is_exact(weights in proptest::collection::vec(0u16..=256, 1..20), start in 0u32..1000) {
            let cluster = cluster(Balance::RoundRobin, &weights);
            let total = cluster.total_weight;
            let mut live = vec![0u32; weights.len()];
            for cursor in start * total..(start + 1) * total {
                live[select(&cluster, cursor, |_| Load::default()).expect("a slot") as usize] += 1;
            }
            let wanted: Vec<u32> = weights.iter().map(|w| *w as u32).collect();
            prop_assert_eq!(live, wanted);
        }
    }
}
