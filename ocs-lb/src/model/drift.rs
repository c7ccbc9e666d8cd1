//! Whether the datapath's counts have come apart from its flows: pure.
//!
//! Counts change while a walk counts again, so a difference is believed only
//! where it is the same in three passes, each with the same counts before and
//! after its walk.

use std::collections::BTreeMap;

use ocs_lb_common::abi::{Correction, Load};

/// Passes that must agree.
const PASSES: u8 = 3;

/// One backend in one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    /// Its counts before the walk.
    pub before: Load,
    /// Its flows as the walk met them.
    pub recount: Load,
    /// Its counts after the walk.
    pub after: Load,
}

/// A difference that was met, and in how many passes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Suspicion {
    /// What the count lacks, modulo 2^32.
    difference: u32,
    passes: u8,
}

impl Suspicion {
    /// Takes one pass of one count; what is to be added to it, once that is
    /// certain. A count that moved during the walk tells nothing.
    fn judge(&mut self, before: u32, recount: u32, after: u32) -> Option<u32> {
        let difference = recount.wrapping_sub(before);
        if difference != recount.wrapping_sub(after) {
            return None;
        }
        if difference == 0 {
            *self = Self::default();
            return None;
        }
        let passes = if difference == self.difference {
            self.passes + 1
        } else {
            1
        };
        if passes < PASSES {
            *self = Self { difference, passes };
            return None;
        }
        *self = Self::default();
        Some(difference)
    }
}

/// What is suspected of every backend.
#[derive(Debug, Default)]
pub struct Drift {
    /// Live and pending, by cluster and slot.
    backends: BTreeMap<(u16, u16), [Suspicion; 2]>,
}

impl Drift {
    /// Takes one pass of a backend; the repair, once it is certain.
    pub fn observe(&mut self, cluster: u16, backend: u16, pass: &Pass) -> Option<Correction> {
        let [live, pending] = self.backends.entry((cluster, backend)).or_default();
        let (before, recount, after) = (&pass.before, &pass.recount, &pass.after);
        let live = live.judge(before.live, recount.live, after.live);
        let pending = pending.judge(before.pending, recount.pending, after.pending);
        if live.is_none() && pending.is_none() {
            return None;
        }
        Some(Correction {
            cluster,
            backend,
            live: live.unwrap_or(0),
            pending: pending.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(live: u32, pending: u32) -> Load {
        Load { live, pending }
    }

    /// Counts that did not move, and what the walk met.
    fn still(count: (u32, u32), met: (u32, u32)) -> Pass {
        Pass {
            before: load(count.0, count.1),
            recount: load(met.0, met.1),
            after: load(count.0, count.1),
        }
    }

    /// What each pass makes it say of one backend: `(live, pending)`.
    fn said(passes: &[Pass]) -> Vec<Option<(u32, u32)>> {
        let mut drift = Drift::default();
        let each = passes.iter().map(|pass| drift.observe(3, 7, pass));
        each.map(|found| {
            found.map(|found| {
                assert_eq!((found.cluster, found.backend), (3, 7));
                (found.live, found.pending)
            })
        })
        .collect()
    }

    #[test]
    fn three_times_the_same_is_repaired() {
        let off = still((10, 0), (8, 0));
        let minus_two = 0u32.wrapping_sub(2);
        assert_eq!(said(&[off; 3]), [None, None, Some((minus_two, 0))]);
        // The counts may differ between passes, as long as the difference stays.
        let passes = [
            still((10, 0), (11, 0)),
            still((50, 0), (51, 0)),
            still((7, 0), (8, 0)),
        ];
        assert_eq!(said(&passes), [None, None, Some((1, 0))]);
        // A repair that did not help is tried again after three more.
        assert_eq!(said(&[off; 6])[3..], [None, None, Some((minus_two, 0))]);
    }

    #[test]
    fn what_changes_is_not_repaired() {
        let (off, good) = (still((10, 0), (8, 0)), still((10, 0), (10, 0)));
        let other = still((10, 0), (9, 0));
        assert_eq!(said(&[off, off, good, off, off]), [None; 5]);
        assert_eq!(said(&[off, off, other, off, off]), [None; 5]);
        assert_eq!(said(&[good; 9]), [None; 9]);
    }

    #[test]
    fn a_count_that_moves_tells_nothing() {
        let off = still((10, 0), (8, 0));
        let moved = Pass {
            after: load(11, 0),
            ..off
        };
        assert_eq!(said(&[moved; 9]), [None; 9]);
        // It neither confirms nor clears.
        let minus_two = 0u32.wrapping_sub(2);
        let found = said(&[off, moved, off, moved, moved, off]);
        assert_eq!(found[..5], [None; 5]);
        assert_eq!(found[5], Some((minus_two, 0)));
    }

    #[test]
    fn live_and_pending_are_judged_apart() {
        // Pending moves in every pass; live is off by one all the same.
        let pass = Pass {
            before: load(4, 100),
            recount: load(5, 120),
            after: load(4, 130),
        };
        assert_eq!(said(&[pass; 3]), [None, None, Some((1, 0))]);
        let both = still((0, u32::MAX), (2, 0));
        assert_eq!(said(&[both; 3])[2], Some((2, 1)));
    }

    #[test]
    fn backends_are_judged_apart() {
        let mut drift = Drift::default();
        let off = still((1, 0), (0, 0));
        for pass in 0..3 {
            for slot in 0..2 {
                let found = drift.observe(0, slot, &off);
                assert_eq!(found.is_some(), pass == 2, "{pass} {slot}");
            }
        }
    }
}
