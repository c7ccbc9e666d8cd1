//! The clock.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use ocs_lb_common::ticks::Ticks;

use crate::maps::{CLOCK, TEST_CLOCK};

/// 1: the time is what [`TEST_CLOCK`] says. Set before the programs are loaded;
/// where it is 0, as in every datapath that forwards, the verifier leaves
/// nothing of it.
#[unsafe(no_mangle)]
static USE_TEST_CLOCK: u8 = 0;

/// The time that a test sets, where one does.
#[inline(always)]
fn test_time() -> Option<Now> {
    // SAFETY: a static is readable; volatile, as the loader changes it.
    if unsafe { core::ptr::read_volatile(&raw const USE_TEST_CLOCK) } == 0 {
        return None;
    }
    TEST_CLOCK.get(0).map(|ns| Now::at(*ns))
}

/// One reading of the clock.
#[derive(Clone, Copy)]
pub struct Now {
    /// Nanoseconds of `CLOCK_MONOTONIC`: exact to two jiffies.
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

/// A clock's reading and the jiffy it was made in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reading {
    jiffies: u64,
    ns: u64,
}

/// Reads the clock, once a jiffy and CPU: the coarse clock changes no more
/// often, and the kernel turns the jiffies' helper into a single load, where a
/// call costs 30 ns on a CPU with return thunks. The two change one after the
/// other, so a reading may be a jiffy older still; no timeout needs better.
#[inline(always)]
pub fn now() -> Now {
    if let Some(now) = test_time() {
        return now;
    }
    // SAFETY: the helpers take nothing and only read.
    let (jiffies, coarse) = (unsafe { bpf_jiffies64() }, || unsafe {
        bpf_ktime_get_coarse_ns()
    });
    let Some(reading) = CLOCK.get_ptr_mut(0) else {
        return Now::at(coarse());
    };
    // SAFETY: a per-CPU value, and programs do not interrupt each other on one
    // CPU within XDP.
    unsafe {
        if (*reading).jiffies != jiffies {
            *reading = Reading {
                jiffies,
                ns: coarse(),
            };
        }
        Now::at((*reading).ns)
    }
}

/// Reads the exact clock, for programs that may not use the coarse one.
#[inline(always)]
pub fn exact() -> Now {
    if let Some(now) = test_time() {
        return now;
    }
    // SAFETY: as above.
    Now::at(unsafe { bpf_ktime_get_ns() })
}
