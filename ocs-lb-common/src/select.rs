//! Step four, for new flows: which backend.

use crate::abi::{Balance, Cluster, Load, MAX_BACKENDS, Slot, StickyValue};

/// The slot that takes a client by the cluster's algorithm.
///
/// `load` reads a slot's counts, `cursor` is the number of choices made
/// before. `None`: no slot has a weight, so no backend is ready.
#[inline(always)]
pub fn select(cluster: &Cluster, cursor: u32, load: impl Fn(usize) -> Load) -> Option<u16> {
    if cluster.balance == Balance::RoundRobin as u8 {
        round_robin(cluster, cursor)
    } else {
        least_connections(cluster, cursor, load)
    }
}

/// Fewest flows for its weight; the first slot from the cursor on wins a tie,
/// so ties rotate.
///
/// Live and half-open flows count. Compares `count x other's weight`, so there
/// is no division. Exact when arrivals are serial; CPUs that choose at the
/// same instant may each be off by one.
#[inline(always)]
fn least_connections(cluster: &Cluster, cursor: u32, load: impl Fn(usize) -> Load) -> Option<u16> {
    let len = cluster.backends as u32;
    if len == 0 {
        return None;
    }
    let start = cursor % len;
    let mut best: Option<(u16, u64, u64)> = None;
    for step in 0..MAX_BACKENDS as u32 {
        if step >= len {
            break;
        }
        let mut at = start + step;
        if at >= len {
            at -= len;
        }
        let at = (at as usize) & (MAX_BACKENDS - 1);
        let weight = cluster.slots[at].weight as u64;
        if weight == 0 {
            continue;
        }
        let load = load(at);
        let count = load.live as u64 + load.pending as u64;
        let better = match best {
            None => true,
            Some((_, best_count, best_weight)) => count * best_weight < best_count * weight,
        };
        if better {
            best = Some((at as u16, count, weight));
        }
    }
    best.map(|(slot, _, _)| slot)
}

/// In turn, by weight: every run of `total_weight` choices gives each slot
/// exactly its weight. The stride spreads a heavy slot over the run.
#[inline(always)]
fn round_robin(cluster: &Cluster, cursor: u32) -> Option<u16> {
    if cluster.total_weight == 0 {
        return None;
    }
    let mut rest = (cursor as u64 * cluster.stride as u64 % cluster.total_weight as u64) as u32;
    for at in 0..MAX_BACKENDS {
        if at >= cluster.backends as usize {
            break;
        }
        let weight = cluster.slots[at].weight as u32;
        if rest < weight {
            return Some(at as u16);
        }
        rest -= weight;
    }
    None
}

/// A step for [`round_robin`]: about 0.618 of the total and coprime to it, so
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

/// The backend of a sticky entry, if it is fresh and its backend takes sticky
/// clients.
#[inline(always)]
pub fn sticky(cluster: &Cluster, entry: Option<&StickyValue>, now_ns: u64) -> Option<u16> {
    let entry = entry?;
    let age_ticks = now_ns.saturating_sub(entry.last_used_ns) >> 20;
    if age_ticks >= cluster.sticky_expire as u64 || entry.backend >= cluster.backends {
        return None;
    }
    let slot = cluster.slots[entry.backend as usize & (MAX_BACKENDS - 1)];
    (slot.flags & Slot::STICKY != 0).then_some(entry.backend)
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
            pad: [0; 3],
        };
        let now = 1000 << 20;
        assert_eq!(sticky(&cluster, None, now), None);
        assert_eq!(sticky(&cluster, Some(&entry(0, now)), now), Some(0));
        assert_eq!(
            sticky(&cluster, Some(&entry(1, now)), now),
            Some(1),
            "weight 0 still takes its sticky clients"
        );
        assert_eq!(sticky(&cluster, Some(&entry(0, 901 << 20)), now), Some(0));
        assert_eq!(
            sticky(&cluster, Some(&entry(0, 900 << 20)), now),
            None,
            "expired"
        );
        assert_eq!(
            sticky(&cluster, Some(&entry(2, now)), now),
            None,
            "no such slot"
        );
        cluster.slots[0].flags = 0;
        assert_eq!(
            sticky(&cluster, Some(&entry(0, now)), now),
            None,
            "backend is down"
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
