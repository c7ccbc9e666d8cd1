//! Instructions the verifier may walk. The kernel's own limit is 1,000,000; a
//! program near it fails on the next kernel, not in review.

use ocs_lb::datapath::load::{CORRECT, KILL, SWEEP, TC, XDP};

/// Every program of the object, on every kernel.
const BUDGETS: [(&str, u32); 5] = [
    (XDP, 250_000),
    (TC, 250_000),
    (SWEEP, 10_000),
    (KILL, 10_000),
    (CORRECT, 500),
];

/// What a program may take; none for one that was not thought of.
pub fn budget(program: &str) -> Option<u32> {
    BUDGETS
        .iter()
        .find_map(|(name, budget)| (*name == program).then_some(*budget))
}

/// Programs with a budget.
pub fn names() -> impl Iterator<Item = &'static str> {
    BUDGETS.iter().map(|(name, _)| *name)
}
