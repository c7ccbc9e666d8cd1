//! The clock.

use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use ocs_lb_common::ticks::Ticks;

/// One reading of the clock.
#[derive(Clone, Copy)]
pub struct Now {
    /// Nanoseconds of `CLOCK_MONOTONIC_COARSE`: exact to a jiffy.
    pub ns: u64,
    /// The same in ticks.
    pub ticks: Ticks,
}

impl Now {
    #[inline(always)]
    fn at(ns: u64) -> Self {
        Self {
            ns,
            ticks: Ticks::from_ns(ns),
        }
    }
}

/// Reads the clock. The coarse one: a few ns where the exact one takes 20, and
/// no timeout needs better than a jiffy.
#[inline(always)]
pub fn now() -> Now {
    // SAFETY: the helper takes nothing and only reads.
    Now::at(unsafe { bpf_ktime_get_coarse_ns() })
}

/// Reads the exact clock, for programs that may not use the coarse one.
#[inline(always)]
pub fn exact() -> Now {
    // SAFETY: as above.
    Now::at(unsafe { bpf_ktime_get_ns() })
}
