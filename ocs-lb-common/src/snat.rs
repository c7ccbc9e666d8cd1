//! Step five, for new flows: a free SNAT port.
//!
//! A search costs a handful of word reads at 99 % occupancy as at 1 %: the two
//! upper levels of the bitmap lead past everything that is full. A bit is
//! claimed by an atomic or; losing one to another CPU costs one more step.

use crate::abi::{LEAVES, PortMap};

/// Index of the first word of the middle level, in words of the bitmap.
const FULL: usize = LEAVES;
/// Index of the top word.
const TOP: usize = LEAVES + LEAVES / 64;
/// Index of the first word of the resting ports' leaves.
pub(crate) const REST: usize = TOP + 1;
/// Index of the first word of their middle level.
pub(crate) const SOME: usize = REST + LEAVES;
/// Index of their top word.
pub(crate) const ANY: usize = SOME + LEAVES / 64;
/// Words of both bitmaps, all levels.
pub const WORDS: usize = ANY + 1;

const _: () = assert!(core::mem::offset_of!(PortMap, full) == FULL * 8);
const _: () = assert!(core::mem::offset_of!(PortMap, top) == TOP * 8);
const _: () = assert!(core::mem::offset_of!(PortMap, rest) == REST * 8);
const _: () = assert!(core::mem::offset_of!(PortMap, some) == SOME * 8);
const _: () = assert!(core::mem::offset_of!(PortMap, any) == ANY * 8);

/// Steps of one search at most: a lost race, a stale hint or a reserved port
/// costs one each.
pub const STEPS: u32 = 256;

/// Access to a [`PortMap`]'s words, by index over both bitmaps.
pub trait PortWords {
    /// Reads a word.
    fn load(&self, word: usize) -> u64;
    /// Atomically sets bits; returns the word before.
    fn fetch_or(&self, word: usize, bits: u64) -> u64;
    /// Atomically keeps only `bits`; returns the word before.
    fn fetch_and(&self, word: usize, bits: u64) -> u64;
}

/// A search for a free port. The caller repeats [`Search::step`] up to
/// [`STEPS`] times, with whatever loop its surroundings allow.
///
/// The order of the fields keeps neighbours that start as zero on one aligned
/// word: the compiler stores them together, and the verifier wants every word
/// on the stack aligned.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    low: u32,
    high: u32,
    wrapped: u32,
    claimed: u32,
    at: u32,
}

impl Search {
    /// A search in `low..=high` that begins at `cursor` and goes around.
    #[inline(always)]
    pub fn new(low: u16, high: u16, cursor: u16) -> Self {
        let (low, high, cursor) = (low as u32, high as u32, cursor as u32);
        Self {
            low,
            high,
            at: if cursor < low || cursor > high {
                low
            } else {
                cursor
            },
            wrapped: 0,
            claimed: 0,
        }
    }

    /// One look; whether the search is over.
    ///
    /// `reserved` says which ports must not be used although they are free,
    /// such as served ports of the same address; they are left claimed for
    /// good, so that each costs one step once.
    #[inline(always)]
    pub fn step(&mut self, words: &impl PortWords, reserved: impl Fn(u16) -> bool) -> bool {
        let look = if self.at > self.high {
            Look::End
        } else {
            next_free(words, self.at)
        };
        match look {
            Look::Found(port) if port <= self.high => {
                if take(words, port) && !reserved(port as u16) {
                    self.claimed = port;
                    return true;
                }
                self.at = port + 1;
            }
            Look::Skip(port) if port <= self.high => self.at = port,
            _ if self.wrapped != 0 => return true,
            _ => {
                self.wrapped = 1;
                self.at = self.low;
            }
        }
        false
    }

    /// The claimed port. `None`: none is free (or `STEPS` steps were lost).
    #[inline(always)]
    pub fn claimed(&self) -> Option<u16> {
        if self.claimed == 0 {
            None
        } else {
            Some(self.claimed as u16)
        }
    }
}

/// Claims a free port of `low..=high` from `cursor` on and around, with a
/// plain loop. `None`: none is free.
pub fn claim(
    words: &impl PortWords,
    low: u16,
    high: u16,
    cursor: u16,
    reserved: impl Fn(u16) -> bool,
) -> Option<u16> {
    let mut search = Search::new(low, high, cursor);
    for _ in 0..STEPS {
        if search.step(words, &reserved) {
            break;
        }
    }
    search.claimed()
}

/// Frees a port. The caller owns it.
#[inline(always)]
pub fn release(words: &impl PortWords, port: u16) {
    let leaf = port as usize >> 6;
    words.fetch_and(leaf, !(1 << (port & 63)));
    words.fetch_and(FULL + (leaf >> 6), !(1 << (leaf & 63)));
    words.fetch_and(TOP, !(1 << (leaf >> 6)));
}

pub(crate) enum Look {
    /// A port that was free when looked at.
    Found(u32),
    /// Nothing here; go on at this port.
    Skip(u32),
    /// Nothing up to the end.
    End,
}

/// The lowest free port from `at` on, as far as one look at each level tells.
#[inline(always)]
fn next_free(words: &impl PortWords, at: u32) -> Look {
    let leaf = (at >> 6) as usize & (LEAVES - 1);
    let free = !words.load(leaf) & (u64::MAX << (at & 63));
    if free != 0 {
        return Look::Found((leaf as u32) << 6 | free.trailing_zeros());
    }
    let group = leaf >> 6;
    let open = !words.load(FULL + group) & above(leaf as u32 & 63);
    if open != 0 {
        return Look::Skip(((group as u32) << 6 | open.trailing_zeros()) << 6);
    }
    let open = !words.load(TOP) & above(group as u32) & 0xffff;
    if open == 0 {
        return Look::End;
    }
    let group = open.trailing_zeros() as usize & 15;
    let open = !words.load(FULL + group);
    if open == 0 {
        // The hint of the top word is late.
        return Look::Skip((group as u32 + 1) << 12);
    }
    Look::Skip(((group as u32) << 6 | open.trailing_zeros()) << 6)
}

/// All bits above `bit`, which is below 64.
#[inline(always)]
pub(crate) const fn above(bit: u32) -> u64 {
    (u64::MAX << bit) << 1
}

/// Claims one port; whether it was free. Keeps the hints.
#[inline(always)]
fn take(words: &impl PortWords, port: u32) -> bool {
    let leaf = (port >> 6) as usize & (LEAVES - 1);
    let bit = 1u64 << (port & 63);
    let before = words.fetch_or(leaf, bit);
    if before & bit != 0 {
        return false;
    }
    if before | bit == u64::MAX {
        let group = leaf >> 6;
        let group_before = words.fetch_or(FULL + group, 1 << (leaf & 63));
        if group_before | 1 << (leaf & 63) == u64::MAX {
            words.fetch_or(TOP, 1 << group);
            if words.load(FULL + group) != u64::MAX {
                words.fetch_and(TOP, !(1 << group));
            }
        }
        // A release may have come between: it cleared the hints before they
        // were set. Whoever sets a hint looks again.
        if words.load(leaf) != u64::MAX {
            words.fetch_and(FULL + group, !(1 << (leaf & 63)));
            words.fetch_and(TOP, !(1 << group));
        }
    }
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicU64, Ordering};

    pub(crate) struct Words(RefCell<[u64; WORDS]>);

    impl Words {
        pub(crate) fn new() -> Self {
            Self(RefCell::new([0; WORDS]))
        }
    }

    impl PortWords for Words {
        fn load(&self, word: usize) -> u64 {
            self.0.borrow()[word]
        }
        fn fetch_or(&self, word: usize, bits: u64) -> u64 {
            let mut words = self.0.borrow_mut();
            let before = words[word];
            words[word] |= bits;
            before
        }
        fn fetch_and(&self, word: usize, bits: u64) -> u64 {
            let mut words = self.0.borrow_mut();
            let before = words[word];
            words[word] &= bits;
            before
        }
    }

    fn fill(words: &Words, low: u16, high: u16) -> Vec<u16> {
        let mut taken = Vec::new();
        let mut cursor = low;
        while let Some(port) = claim(words, low, high, cursor, |_| false) {
            taken.push(port);
            cursor = port.wrapping_add(1);
        }
        taken
    }

    #[test]
    fn the_whole_range_both_ends_included() {
        for (low, high) in [
            (1024, 65535),
            (1024, 1024),
            (32768, 60999),
            (65535, 65535),
            (1087, 1153),
        ] {
            let taken = fill(&Words::new(), low, high);
            assert_eq!(taken, (low..=high).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_only_free_port_is_found_from_anywhere() {
        let words = Words::new();
        fill(&words, 1024, 65535);
        for port in [1024u16, 5000, 40_000, 65_535] {
            release(&words, port);
            for cursor in [0, 1024, port, port.wrapping_add(1), 65_535] {
                assert_eq!(
                    claim(&words, 1024, 65535, cursor, |_| false),
                    Some(port),
                    "from {cursor}"
                );
                release(&words, port);
            }
            assert!(take(&words, port as u32));
        }
        assert_eq!(claim(&words, 1024, 65535, 7, |_| false), None);
    }

    #[test]
    fn reserved_ports_are_stepped_over_once() {
        let words = Words::new();
        let served = [5060, 5061, 5065, 5069, 5071, 5072, 5073, 5074];
        let taken: Vec<_> = (0..20)
            .map(|_| {
                claim(&words, 5060, 5090, 5060, |port| served.contains(&port)).expect("a port")
            })
            .collect();
        assert_eq!(taken[..4], [5062, 5063, 5064, 5066]);
        assert!(taken.iter().all(|port| !served.contains(port)));
    }

    #[test]
    fn a_port_lost_at_the_very_end_does_not_lead_below_the_range() {
        let words = Words::new();
        let last = |port| port == 65_535;
        assert_eq!(claim(&words, 65_530, 65_535, 65_535, last), Some(65_530));
        assert_eq!(words.load(0), 0, "port 0 is nobody's");
    }

    #[test]
    fn races_never_give_one_port_twice() {
        struct Shared([AtomicU64; WORDS]);
        impl PortWords for Shared {
            fn load(&self, word: usize) -> u64 {
                self.0[word].load(Ordering::SeqCst)
            }
            fn fetch_or(&self, word: usize, bits: u64) -> u64 {
                self.0[word].fetch_or(bits, Ordering::SeqCst)
            }
            fn fetch_and(&self, word: usize, bits: u64) -> u64 {
                self.0[word].fetch_and(bits, Ordering::SeqCst)
            }
        }
        let words = Shared([const { AtomicU64::new(0) }; WORDS]);
        let (low, high) = (2000, 2511);
        let mut owned: Vec<u16> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|n: u16| {
                    let words = &words;
                    scope.spawn(move || {
                        let mut mine = Vec::new();
                        for round in 0..2000u16 {
                            if mine.len() > 100 {
                                release(words, mine.swap_remove(round as usize % mine.len()));
                            }
                            let cursor = low + (round * 7 + n * 130) % 512;
                            mine.extend(claim(words, low, high, cursor, |_| false));
                        }
                        mine
                    })
                })
                .collect();
            threads
                .into_iter()
                .flat_map(|t| t.join().expect("no panic"))
                .collect()
        });
        let all = owned.len();
        owned.sort_unstable();
        owned.dedup();
        assert_eq!(owned.len(), all, "a port has two owners");
        let set: u32 = (0..LEAVES).map(|leaf| words.load(leaf).count_ones()).sum();
        assert_eq!(set as usize, all, "a port leaked");
        // Every hint is still true enough to find all the rest.
        let mut rest = 0;
        while claim(&words, low, high, low, |_| false).is_some() {
            rest += 1;
        }
        assert_eq!(rest + all, 512);
    }

    proptest! {
        /// Any order of claims and releases: a port has one owner, and one is
        /// found whenever one is free.
        #[test]
        fn one_owner(
            low in 1024u16..65000,
            span in 0u16..300,
            actions in proptest::collection::vec((any::<bool>(), any::<u16>()), 1..600),
        ) {
            let high = low.saturating_add(span);
            let words = Words::new();
            let mut owned = BTreeSet::new();
            for (claims, number) in actions {
                if claims {
                    match claim(&words, low, high, number, |_| false) {
                        Some(port) => {
                            prop_assert!((low..=high).contains(&port));
                            prop_assert!(owned.insert(port), "port {} has two owners", port);
                        }
                        None => prop_assert_eq!(owned.len(), (high - low) as usize + 1),
                    }
                } else if let Some(port) = owned.iter().nth(number as usize % owned.len().max(1)).copied() {
                    owned.remove(&port);
                    release(&words, port);
                }
            }
        }
    }
}
