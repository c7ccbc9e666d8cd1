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
    /// The slot that wins a tie; the one after it comes second.
    start: u32,
    len: u32,
    /// Weight still to pass over until the slot whose turn it is.
    rest: u32,
    /// Place of the best slot among equals; see [`Scan::order`].
    best_order: u32,
}

/// Added to the order of a slot that is chosen only where there is no other.
const SPARE: u32 = 1 << 16;

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
            best_order: 0,
        };
        if cluster.total_weight == 0 {
            scan.len = 0;
        } else {
            let total = cluster.total_weight as u64;
            scan.rest = (cursor as u64 * cluster.stride as u64 % total) as u32;
            if len != 0 {
                // Ties rotate.
                scan.start = cursor % len;
            }
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
        step as usize & (MAX_BACKENDS - 1)
    }

    /// Looks at slot `at`, that of [`Scan::index`]; whether the search is over.
    #[inline(always)]
    pub fn step(&mut self, at: usize, slot: Slot, load: Load) -> bool {
        let at = at as u32;
        let weight = slot.weight as u64;
        // In turn, by weight: every run of `total_weight` choices gives each
        // slot exactly its weight; the stride spreads a heavy slot over the run.
        let has_turn = (self.rest as u64) < weight;
        // Past the slot whose turn it is this wraps, and stays above every weight.
        self.rest = self.rest.wrapping_sub(slot.weight as u32);
        if self.round_robin != 0 {
            if weight != 0 {
                // Stays the answer where the walk runs out: weights may change
                // while it reads them.
                self.best = at + 1;
            }
            return has_turn;
        }
        let ramps = slot.flags & Slot::RAMP != 0;
        if ramps && has_turn {
            // It has next to no flows, and would win every comparison: its
            // turn alone says what it gets, and that it gets it.
            self.best = at + 1;
            return true;
        }
        // Fewest flows, live and half-open, for its weight; compared as
        // `count x other's weight`, without a division. Exact when arrivals
        // are serial; CPUs that choose at the same instant may each be off by
        // one.
        let count = load.flows() as u64;
        let order = self.order(at, ramps);
        let (own, others) = (count * self.best_weight, self.best_count * weight);
        let better = if self.best == 0 {
            true
        } else if (order ^ self.best_order) & SPARE != 0 {
            order < SPARE
        } else {
            own < others || (own == others && order < self.best_order)
        };
        if weight != 0 && better {
            self.best = at + 1;
            self.best_count = count;
            self.best_weight = weight;
            self.best_order = order;
        }
        false
    }

    /// Steps from `start` on, around the end, to slot `at`; a slot that ramps
    /// and whose turn it is not comes after all others.
    #[inline(always)]
    const fn order(&self, at: u32, ramps: bool) -> u32 {
        let steps = at.wrapping_sub(self.start);
        let steps = if at < self.start {
            steps.wrapping_add(self.len)
        } else {
            steps
        };
        if ramps { steps + SPARE } else { steps }
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

/// 2^32 divided by the golden ratio.
const GOLDEN: u64 = 2_654_435_769;

/// A step through turns: the golden section of the total and coprime to it, so
/// that stepping visits every unit of weight once before it repeats, and a run
/// of any length is spread evenly.
pub const fn stride(total_weight: u32) -> u32 {
    if total_weight < 2 {
        return 1;
    }
    let mut step = ((total_weight as u64 * GOLDEN) >> 32) as u32;
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

    /// Shares of `arrivals` choices, in thousandths, where each backend holds
    /// `flows` before and keeps what it gets.
    fn shares(cluster: &Cluster, flows: &[u32], first: u32, arrivals: u32) -> Vec<f64> {
        let mut live = flows.to_vec();
        for cursor in first..first + arrivals {
            let slot = select(cluster, cursor, |at| Load {
                live: live[at],
                pending: 0,
            });
            live[slot.expect("a slot") as usize] += 1;
        }
        let got = live.iter().zip(flows).map(|(now, before)| now - before);
        got.map(|got| f64::from(got) / f64::from(arrivals))
            .collect()
    }

    /// A cluster of which some backends ramp; each `(weight, ramps)`.
    fn ramping(slots: &[(u16, bool)]) -> Cluster {
        let weights: Vec<u16> = slots.iter().map(|(weight, _)| *weight).collect();
        let mut cluster = cluster(Balance::LeastConn, &weights);
        for (slot, (_, ramps)) in cluster.slots.iter_mut().zip(slots) {
            slot.flags |= if *ramps { Slot::RAMP } else { 0 };
        }
        cluster
    }

    #[test]
    fn a_ramping_backend_gets_its_share_and_not_all() {
        // Three servers with many flows, and one that came back with none.
        for percent in [1u16, 25, 50, 75, 99] {
            let own = 128 * percent / 100;
            let cluster = ramping(&[(128, false), (own, true), (128, false), (128, false)]);
            let shares = shares(&cluster, &[5000, 0, 5000, 5000], 7, 1000);
            let wanted = f64::from(own) / f64::from(3 * 128 + own);
            assert!((shares[1] - wanted).abs() < 0.005, "{percent}: {shares:?}");
            for other in [0, 2, 3] {
                let wanted = 128.0 / f64::from(3 * 128 + own);
                assert!(
                    (shares[other] - wanted).abs() < 0.005,
                    "{percent}: {shares:?}"
                );
            }
        }
    }

    #[test]
    fn nobody_is_refused_because_all_ramp() {
        let all = ramping(&[(1, true), (64, true), (128, true)]);
        let shares = shares(&all, &[0, 300, 9], 0, 193);
        let wanted = [1.0 / 193.0, 64.0 / 193.0, 128.0 / 193.0];
        for (share, wanted) in shares.iter().zip(wanted) {
            assert!((share - wanted).abs() < 1e-9, "{shares:?}");
        }
        // One of them had its try: its turn passes to another.
        let mut tried = all;
        tried.slots[2] = Slot::default();
        let picks = (0..500).map(|cursor| select(&tried, cursor, |_| Load::default()));
        let picks: Vec<_> = picks.map(|slot| slot.expect("a slot")).collect();
        assert!(picks.iter().all(|slot| *slot < 2));
        let single = ramping(&[(0, false), (1, true)]);
        for cursor in 0..9 {
            assert_eq!(select(&single, cursor, |_| Load::default()), Some(1));
        }
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

        /// What ramps gets the share of its weight, however many flows it has
        /// or others have; what does not ramp shares the rest as leastconn.
        #[test]
        fn a_ramp_is_followed(
            slots in proptest::collection::vec((1u16..=4096, any::<bool>(), 0u32..20_000), 1..12),
            first in 0u32..1_000_000,
        ) {
            let kinds: Vec<(u16, bool)> = slots.iter().map(|(w, ramps, _)| (*w, *ramps)).collect();
            let flows: Vec<u32> = slots.iter().map(|(_, _, flows)| *flows).collect();
            let cluster = ramping(&kinds);
            let shares = shares(&cluster, &flows, first, 1000);
            let mut ramped = 0.0;
            for ((weight, ramps), share) in kinds.iter().zip(&shares) {
                let wanted = f64::from(*weight) / f64::from(cluster.total_weight);
                if *ramps {
                    prop_assert!((share - wanted).abs() < 0.02, "{share} of {wanted}");
                    ramped += wanted;
                }
            }
            let rest: f64 = kinds.iter().zip(&shares).filter(|((_, r), _)| !r).map(|(_, s)| s).sum();
            prop_assert!((rest - (1.0 - ramped)).abs() < 0.05, "{rest} beside {ramped}");
        }

        /// Without a ramp it is the plain search: from the cursor on, the first
        /// with the fewest flows for its weight.
        #[test]
        fn leastconn_is_what_it_says(
            slots in proptest::collection::vec((0u16..=8, 0u32..6), 1..12),
            cursor in any::<u32>(),
        ) {
            let weights: Vec<u16> = slots.iter().map(|(weight, _)| *weight).collect();
            let cluster = cluster(Balance::LeastConn, &weights);
            let start = cursor as usize % slots.len();
            let mut plain: Option<usize> = None;
            for at in (start..slots.len()).chain(0..start) {
                let (weight, flows) = (u64::from(slots[at].0), u64::from(slots[at].1));
                let better = plain.is_none_or(|best| {
                    flows * u64::from(slots[best].0) < u64::from(slots[best].1) * weight
                });
                if weight > 0 && better {
                    plain = Some(at);
                }
            }
            let found = select(&cluster, cursor, |at| Load { live: slots[at].1, pending: 0 });
            prop_assert_eq!(found.map(usize::from), plain);
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
