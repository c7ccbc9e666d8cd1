//! The two entries of a flow, written and deleted together.

use ocs_lb_common::{
    abi::{BPF_NOEXIST, Flow, FlowKey},
    track::{Phase, StateWord},
    verdict::Verdict,
};

use crate::{count, flow::swap, maps::Family, port};

/// Why a flow could not be written.
pub struct Failure {
    /// What is counted.
    pub verdict: Verdict,
    /// The reverse entry could not be taken back and holds its port until the
    /// sweep finds it.
    pub keeps_port: bool,
}

/// Writes a new flow: the reverse entry first, as it proves that the SNAT
/// tuple is nobody else's, then the forward one. On failure nothing is left of
/// it but the port, which the caller gives back unless the failure says no.
/// `flags` is for the forward entry: a flow that moves replaces its old one.
#[inline(always)]
pub fn insert<A: Family>(
    key: &FlowKey<A>,
    forward: &Flow<A>,
    reverse: &Flow<A>,
    flags: u64,
) -> Result<(), Failure> {
    let reverse_key = forward.peer_key();
    if let Err(errno) = A::flows().insert(&reverse_key, reverse, BPF_NOEXIST) {
        return Err(Failure {
            verdict: insert_error(errno, Verdict::Inconsistent),
            keeps_port: false,
        });
    }
    if let Err(errno) = A::flows().insert(key, forward, flags) {
        return Err(Failure {
            verdict: insert_error(errno, Verdict::Race),
            keeps_port: A::flows().remove(&reverse_key).is_err(),
        });
    }
    Ok(())
}

/// Errors of an insert into a preallocated hash
/// (`kernel/bpf/hashtab.c`: `htab_map_update_elem`, `alloc_htab_elem`).
#[inline(always)]
fn insert_error(errno: i32, exists: Verdict) -> Verdict {
    const EEXIST: i32 = -17;
    const EBUSY: i32 = -16;
    match errno {
        EEXIST => exists,
        EBUSY => Verdict::Race,
        _ => Verdict::FlowTableFull,
    }
}

/// Deletes both entries of a flow that is over in the state `word`, and frees
/// its port or, with `keep_port`, leaves it to the caller. `key` is that of
/// `forward`. Fails where another CPU does it.
///
/// The swap to [`Phase::Deleting`] is the arbiter. The state carries the
/// flow's generation, so an element that has become another flow meanwhile is
/// not taken for this one.
#[inline(always)]
pub fn delete<A: Family>(
    key: &FlowKey<A>,
    forward: &mut Flow<A>,
    word: StateWord,
    keep_port: bool,
) -> Result<(), ()> {
    if !swap(&mut forward.state, word, word.with_phase(Phase::Deleting)) {
        return Err(());
    }
    let reverse_key = forward.peer_key();
    let (cluster, backend) = (forward.cluster, forward.backend);
    let bytes_in = forward.bytes;
    // SAFETY: a value of the map, read only.
    let bytes_out = A::flows()
        .get_ptr(&reverse_key)
        .map_or(0, |reverse| unsafe { (*reverse).bytes });
    if A::flows().remove(&reverse_key).is_err() {
        // It keeps its port until the sweep finds it.
        let _ = A::flows().remove(key);
        return Err(());
    }
    // A failure leaves an entry without its other half, which the sweep finds.
    let _ = A::flows().remove(key);
    if keep_port {
        port::unrest(&reverse_key.reversed(), cluster);
    } else {
        port::release(&reverse_key.reversed(), cluster);
    }
    count::add_bytes(cluster, backend, bytes_in, bytes_out);
    Ok(())
}

/// The same for a reverse entry that is only the record of its port's rest.
#[inline(always)]
pub fn delete_record<A: Family>(
    key: &FlowKey<A>,
    record: &mut Flow<A>,
    word: StateWord,
    keep_port: bool,
) -> Result<(), ()> {
    if !swap(&mut record.state, word, word.with_phase(Phase::Deleting)) {
        return Err(());
    }
    let cluster = record.cluster;
    A::flows().remove(key).map_err(|_| ())?;
    if keep_port {
        port::unrest(&key.reversed(), cluster);
    } else {
        port::release(&key.reversed(), cluster);
    }
    Ok(())
}
