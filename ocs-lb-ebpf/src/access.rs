//! Who may open a flow: lists of sources, and the pace of new connections.

use ocs_lb_common::{
    abi::{BPF_NOEXIST, Reason, Service, ServiceKey, SourceKey},
    access::{NONE, find},
    classify,
    limit::Pace,
    verdict::Verdict,
};

use crate::{
    atomic::{add_u64, swap_u64},
    count,
    maps::{CLUSTERS, Family, Room},
    open,
};

/// Tries to swap a pace: one is lost only to another connection that is let in
/// at the same instant.
const SWAPS: usize = 8;

/// The value of a list for a source. A list that is not there knows nobody.
#[inline(always)]
pub fn listed<A: Family>(list: u32, source: &A) -> u32 {
    let Some(list) = A::lists().get(list) else {
        return NONE;
    };
    find(source, |at| list.get(at).copied()).unwrap_or(NONE)
}

/// The code of the service of a port of ours for a source; 0 is none.
#[inline(always)]
pub fn service<A: Family>(to: ServiceKey<A>, any: bool, source: &A) -> u64 {
    let found = classify::service(to, any, source, open::service, A::listed);
    found.map_or(0, Service::code)
}

/// A new connection comes faster than its cluster takes them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fast {
    /// Too many of all.
    Total,
    /// Too many of its source.
    Source,
}

impl Fast {
    /// As a number, for the way out of a global function; 0 is none.
    #[inline(always)]
    pub const fn code(found: Option<Self>) -> u32 {
        match found {
            None => 0,
            Some(Self::Total) => 1,
            Some(Self::Source) => 2,
        }
    }

    /// From what [`Fast::code`] made of it.
    #[inline(always)]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => None,
            1 => Some(Self::Total),
            _ => Some(Self::Source),
        }
    }

    /// What is counted where the packet is dropped.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        match self {
            Self::Total => Verdict::RateTotal,
            Self::Source => Verdict::RateSource,
        }
    }

    /// What the operator is told.
    #[inline(always)]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Total => Reason::RateTotal,
            Self::Source => Reason::RateSource,
        }
    }
}

/// Counts the new connection that a CPU's room describes against the limits of
/// its cluster, unless one of them is reached. First that of all: what it keeps
/// out pushes no source out of the table.
#[inline(always)]
pub fn paced<A: Family>(room: &Room<A>) -> Option<Fast> {
    let wanted = &room.wanted;
    let cluster = CLUSTERS.get(wanted.cluster as u32)?;
    let load = count::load(wanted.cluster)?;
    let pace = |interval| Pace {
        interval,
        burst: cluster.rate_burst,
    };
    let (total, source) = (pace(cluster.rate_total), pace(cluster.rate_source));
    let now = wanted.now.ns;
    // SAFETY: the pointer lies within the cluster's counts.
    let next = unsafe { &raw mut (*load).next_new_ns };
    if total.interval != 0 && !take(next, total, now) {
        return Some(Fast::Total);
    }
    if source.interval == 0 {
        return None;
    }
    let key = SourceKey {
        address: wanted.key.source,
        cluster: wanted.cluster,
        pad: 0,
    };
    if takes_source(&key, source, now) {
        return None;
    }
    if total.interval != 0 {
        // SAFETY: as above.
        unsafe { add_u64(next, total.give_back()) };
    }
    Some(Fast::Source)
}

/// The same for one source.
#[inline(always)]
fn takes_source<A: Family>(key: &SourceKey<A>, pace: Pace, now: u64) -> bool {
    if let Some(next) = A::sources().get_ptr_mut(key) {
        return take(next, pace, now);
    }
    let Some(next) = pace.admit(0, now) else {
        return false;
    };
    if A::sources().insert(key, &next, BPF_NOEXIST).is_ok() {
        return true;
    }
    // Another CPU was first; or there is no memory, and the limit of all holds.
    match A::sources().get_ptr_mut(key) {
        Some(next) => take(next, pace, now),
        None => true,
    }
}

/// Takes one connection of a pace.
#[inline(always)]
fn take(at: *mut u64, pace: Pace, now: u64) -> bool {
    for _ in 0..SWAPS {
        // SAFETY: a value of a map, aligned; volatile, as others swap it.
        let next = unsafe { core::ptr::read_volatile(at) };
        let Some(then) = pace.admit(next, now) else {
            return false;
        };
        // SAFETY: as above.
        if unsafe { swap_u64(at, next, then) } {
            return true;
        }
    }
    false
}
