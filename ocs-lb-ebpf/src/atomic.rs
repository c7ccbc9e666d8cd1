//! Atomics with a result on map memory; they need `-Ctarget-cpu=v3`.
//!
//! `core::sync::atomic` lacks them for this target, the intrinsics do not.

use core::intrinsics::{AtomicOrdering, atomic_and, atomic_cxchg, atomic_or, atomic_xadd};

const ORDER: AtomicOrdering = AtomicOrdering::SeqCst;

/// Adds to a counter; returns the value before.
///
/// # Safety
/// `at` points to an aligned integer in a map's value.
#[inline(always)]
pub unsafe fn add_u32(at: *mut u32, value: u32) -> u32 {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u32, u32, ORDER>(at, value) }
}

/// Takes from a counter.
///
/// # Safety
/// As [`add_u32`].
#[inline(always)]
pub unsafe fn sub_u32(at: *mut u32, value: u32) {
    // SAFETY: the caller's. Adding the complement, as there is no subtraction.
    unsafe { atomic_xadd::<u32, u32, ORDER>(at, value.wrapping_neg()) };
}

/// Adds to a wide counter.
///
/// # Safety
/// As [`add_u32`].
#[inline(always)]
pub unsafe fn add_u64(at: *mut u64, value: u64) {
    // SAFETY: the caller's.
    unsafe { atomic_xadd::<u64, u64, ORDER>(at, value) };
}

/// Sets bits; returns the word before.
///
/// # Safety
/// As [`add_u32`].
#[inline(always)]
pub unsafe fn or_u64(at: *mut u64, bits: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_or::<u64, u64, ORDER>(at, bits) }
}

/// Keeps only `bits`; returns the word before.
///
/// # Safety
/// As [`add_u32`].
#[inline(always)]
pub unsafe fn and_u64(at: *mut u64, bits: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { atomic_and::<u64, u64, ORDER>(at, bits) }
}

/// Swaps `old` for `new`; whether it did.
///
/// # Safety
/// As [`add_u32`].
#[inline(always)]
pub unsafe fn swap_u32(at: *mut u32, old: u32, new: u32) -> bool {
    // SAFETY: the caller's.
    unsafe { atomic_cxchg::<u32, ORDER, ORDER>(at, old, new).1 }
}

/// Swaps `old` for `new`; whether it did.
///
/// # Safety
/// As [`add_u32`].
#[inline(always)]
pub unsafe fn swap_u64(at: *mut u64, old: u64, new: u64) -> bool {
    // SAFETY: the caller's.
    unsafe { atomic_cxchg::<u64, ORDER, ORDER>(at, old, new).1 }
}
