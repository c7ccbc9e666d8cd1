//! Ports whose flow is over: marked, and walked when nothing else is free.

use crate::abi::LEAVES;
use crate::snat::{ANY, Look, PortWords, REST, SOME, above};

/// Marks a port in use as resting; whether it was not before.
#[inline(always)]
pub fn rest(words: &impl PortWords, port: u16) -> bool {
    let leaf = port as usize >> 6;
    let bit = 1u64 << (port & 63);
    let before = words.fetch_or(REST + leaf, bit);
    words.fetch_or(SOME + (leaf >> 6), 1 << (leaf & 63));
    words.fetch_or(ANY, 1 << (leaf >> 6));
    before & bit == 0
}

/// Takes the mark back: its flow lives again, or is gone. Whether there was
/// one. The upper levels stay set where others rest.
#[inline(always)]
pub fn unrest(words: &impl PortWords, port: u16) -> bool {
    let leaf = port as usize >> 6;
    let group = leaf >> 6;
    let bit = 1u64 << (port & 63);
    let before = words.fetch_and(REST + leaf, !bit);
    if before & !bit == 0 {
        words.fetch_and(SOME + group, !(1 << (leaf & 63)));
        // Another port of the leaf may have come to rest between the two: it
        // set the hint before it was cleared. Whoever clears one looks again.
        if words.load(REST + leaf) != 0 {
            words.fetch_or(SOME + group, 1 << (leaf & 63));
        }
        if words.load(SOME + group) == 0 {
            words.fetch_and(ANY, !(1 << group));
            if words.load(SOME + group) != 0 {
                words.fetch_or(ANY, 1 << group);
            }
        }
    }
    before & bit != 0
}

/// A walk over the resting ports of a range, for one that may be used again.
/// The caller repeats [`RestSearch::next`] and looks at what it names.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestSearch {
    low: u32,
    high: u32,
    wrapped: u32,
    at: u32,
    /// Where it began: a second visit ends it.
    first: u32,
}

/// What one step of a [`RestSearch`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resting {
    /// This port rests.
    Port(u16),
    /// Nothing yet.
    Next,
    /// Nothing more.
    End,
}

impl RestSearch {
    /// A walk in `low..=high` that begins at `cursor` and goes around: ports
    /// are given out in rotation, so those that rest longest come first.
    #[inline(always)]
    pub fn new(low: u16, high: u16, cursor: u16) -> Self {
        let (low, high, cursor) = (low as u32, high as u32, cursor as u32);
        let at = if cursor < low || cursor > high {
            low
        } else {
            cursor
        };
        Self {
            low,
            high,
            wrapped: 0,
            at,
            first: at,
        }
    }

    /// One look.
    #[inline(always)]
    pub fn next(&mut self, words: &impl PortWords) -> Resting {
        let past_first = |port: u32| self.wrapped != 0 && port >= self.first;
        let look = if self.at > self.high {
            Look::End
        } else {
            next_set(words, self.at)
        };
        match look {
            Look::Found(port) | Look::Skip(port) if port <= self.high && past_first(port) => {
                Resting::End
            }
            Look::Found(port) if port <= self.high => {
                self.at = port + 1;
                Resting::Port(port as u16)
            }
            Look::Skip(port) if port <= self.high => {
                self.at = port;
                Resting::Next
            }
            _ if self.wrapped != 0 => Resting::End,
            _ => {
                self.wrapped = 1;
                self.at = self.low;
                Resting::Next
            }
        }
    }

    /// Where the next walk begins.
    #[inline(always)]
    pub const fn cursor(&self) -> u32 {
        self.at
    }
}

/// The lowest resting port from `at` on, as far as one look at each level
/// tells.
#[inline(always)]
fn next_set(words: &impl PortWords, at: u32) -> Look {
    let leaf = (at >> 6) as usize & (LEAVES - 1);
    let set = words.load(REST + leaf) & (u64::MAX << (at & 63));
    if set != 0 {
        return Look::Found((leaf as u32) << 6 | set.trailing_zeros());
    }
    let group = leaf >> 6;
    let set = words.load(SOME + group) & above(leaf as u32 & 63);
    if set != 0 {
        return Look::Skip(((group as u32) << 6 | set.trailing_zeros()) << 6);
    }
    let set = words.load(ANY) & above(group as u32) & 0xffff;
    if set == 0 {
        return Look::End;
    }
    let group = set.trailing_zeros() as usize & 15;
    let set = words.load(SOME + group);
    if set == 0 {
        // The hint of the top word is late.
        return Look::Skip((group as u32 + 1) << 12);
    }
    Look::Skip(((group as u32) << 6 | set.trailing_zeros()) << 6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snat::tests::Words;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Every resting port of a range in the order of a walk from `cursor`.
    fn walk(words: &Words, low: u16, high: u16, cursor: u16) -> Vec<u16> {
        let mut search = RestSearch::new(low, high, cursor);
        let mut found = Vec::new();
        for _ in 0..200_000 {
            match search.next(words) {
                Resting::Port(port) => found.push(port),
                Resting::Next => {}
                Resting::End => return found,
            }
        }
        panic!("the walk does not end");
    }

    #[test]
    fn the_walk_goes_around_once() {
        let words = Words::new();
        assert_eq!(walk(&words, 1024, 65_535, 30_000), []);
        for port in [1024, 1025, 5000, 30_000, 65_535] {
            assert!(rest(&words, port));
            assert!(!rest(&words, port), "marked already");
        }
        assert_eq!(
            walk(&words, 1024, 65_535, 5001),
            [30_000, 65_535, 1024, 1025, 5000]
        );
        assert_eq!(walk(&words, 1025, 30_000, 9), [1025, 5000, 30_000]);
        assert!(unrest(&words, 5000));
        assert!(!unrest(&words, 5000));
        assert_eq!(walk(&words, 1025, 30_000, 9), [1025, 30_000]);
    }

    #[test]
    fn one_of_many_is_found_in_few_steps() {
        let words = Words::new();
        rest(&words, 60_000);
        let mut search = RestSearch::new(1024, 65_535, 1024);
        let steps = (1..=8).find(|_| search.next(&words) == Resting::Port(60_000));
        assert!(steps.is_some_and(|steps| steps <= 4), "{steps:?}");
    }

    proptest! {
        /// A walk finds exactly the marked ports of its range, whatever was
        /// marked and unmarked before.
        #[test]
        fn marks_are_found(
            low in 1024u16..60_000,
            span in 0u16..5000,
            cursor in any::<u16>(),
            actions in proptest::collection::vec((any::<bool>(), 0u16..5000), 1..300),
        ) {
            let words = Words::new();
            let mut marked = BTreeSet::new();
            for (mark, offset) in actions {
                let port = low.saturating_add(offset);
                let changed = if mark {
                    (rest(&words, port), marked.insert(port))
                } else {
                    (unrest(&words, port), marked.remove(&port))
                };
                prop_assert_eq!(changed.0, changed.1);
            }
            let high = low.saturating_add(span);
            let mut found = walk(&words, low, high, cursor);
            let len = found.len();
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found.len(), len, "a port came twice");
            let wanted: Vec<u16> = marked.range(low..=high).copied().collect();
            prop_assert_eq!(found, wanted);
        }
    }
}
