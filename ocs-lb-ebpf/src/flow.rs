//! Flows in the map: lookup, change of state, birth and deletion of pairs.

use ocs_lb_common::{
    abi::{BPF_NOEXIST, Flow, FlowKey},
    parse::Packet,
    sweep::held,
    track::{Count, Direction, Phase, StateWord, Step, establish, is_plain, start, step},
    verdict::Verdict,
    wire::window_scale,
};

use crate::{atomic::swap_u32, count, maps::Family, packet::XdpFrame, port, time::Now};

/// Tries of a compare-and-swap: one is lost only to another change of the
/// same flow's state, of which there are few in a life.
const SWAP_TRIES: usize = 3;

/// The entry of a packet's flow, after what the packet does to its state.
/// `None`: the packet belongs to no flow.
#[inline(always)]
pub fn track<A: Family>(
    frame: &XdpFrame<'_>,
    packet: &Packet<A>,
    now: Now,
) -> Result<Option<&'static mut Flow<A>>, Verdict> {
    let Some(entry) = A::flows().get_ptr_mut(&packet.key) else {
        return Ok(None);
    };
    // SAFETY: a value of the map. Others may write it at the same time; every
    // field is a plain integer, and the state is changed by swaps only.
    let entry = unsafe { &mut *entry };
    if is_plain(state_of(entry), packet.segment.flags) {
        return Ok(Some(entry));
    }
    change(frame, packet, entry, now)
}

/// The way of a packet that may change its flow's state.
#[inline(always)]
fn change<A: Family>(
    frame: &XdpFrame<'_>,
    packet: &Packet<A>,
    entry: &'static mut Flow<A>,
    now: Now,
) -> Result<Option<&'static mut Flow<A>>, Verdict> {
    // It goes no further, so its receiver never learns what it says.
    if packet.ttl <= 1 {
        return Err(Verdict::TtlExceeded);
    }
    let Some(other) = A::flows().get_ptr_mut(&entry.peer_key()) else {
        // Its other half is being deleted.
        return Err(Verdict::Race);
    };
    // SAFETY: as in `track`.
    let other = unsafe { &mut *other };
    let is_reverse = entry.is_reverse();
    let direction = if is_reverse {
        Direction::Reverse
    } else {
        Direction::Forward
    };
    for _ in 0..SWAP_TRIES {
        let word = if is_reverse {
            state_of(other)
        } else {
            state_of(entry)
        };
        match step(word, direction, &packet.segment, entry.side(), other.side()) {
            Step::Keep => {
                if is_reverse && state_of(entry) != word {
                    entry.state = word;
                }
                return Ok(Some(entry));
            }
            Step::Swap(next, what) => {
                let owner = if is_reverse {
                    &raw mut other.state
                } else {
                    &raw mut entry.state
                };
                if !swap(owner, word, next) {
                    continue;
                }
                if is_reverse {
                    if !word.has(StateWord::SYN_ACK) && next.has(StateWord::SYN_ACK) {
                        let scale = window_scale(frame, packet.tcp_offset, packet.tcp_header_len);
                        start(entry, &packet.segment, scale);
                    }
                    entry.state = next;
                } else {
                    other.state = next;
                    if matches!(what, Count::Promote) {
                        establish(entry, now.ticks, &packet.segment);
                    }
                }
                count::apply(entry.cluster, entry.backend, what);
                return Ok(Some(entry));
            }
            Step::Replace => {
                let (cluster, backend) = (entry.cluster, entry.backend);
                if !end(&mut entry.state, &mut other.state, word, cluster, backend) {
                    continue;
                }
                return match delete(&packet.key, entry, word.with_phase(Phase::Dead)) {
                    Ok(()) => Ok(None),
                    Err(()) => Err(Verdict::Race),
                };
            }
            Step::Gone => return Ok(None),
        }
    }
    Err(Verdict::Race)
}

/// Ends a flow: swaps the owner's state to dead, marks the other half, and
/// gives back what the flow held. Whether this call did it.
#[inline(always)]
pub fn end(
    owner: *mut StateWord,
    other: *mut StateWord,
    word: StateWord,
    cluster: u16,
    backend: u16,
) -> bool {
    let dead = word.with_phase(Phase::Dead);
    if !swap(owner, word, dead) {
        return false;
    }
    // SAFETY: a value of the map; the reverse entry's state is a hint only.
    unsafe { *other = dead };
    count::apply(cluster, backend, held(word.phase()));
    true
}

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
#[inline(always)]
pub fn insert<A: Family>(
    key: &FlowKey<A>,
    forward: &Flow<A>,
    reverse: &Flow<A>,
) -> Result<(), Failure> {
    let reverse_key = forward.peer_key();
    if let Err(errno) = A::flows().insert(&reverse_key, reverse, BPF_NOEXIST) {
        return Err(Failure {
            verdict: insert_error(errno, Verdict::Inconsistent),
            keeps_port: false,
        });
    }
    if let Err(errno) = A::flows().insert(key, forward, BPF_NOEXIST) {
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

/// Deletes both entries of a flow that is dead in the state `dead`, and frees
/// its port. `forward_key` is the key of `forward`. Fails where another CPU
/// does it.
///
/// The swap to [`Phase::Deleting`] is the arbiter. The state carries the
/// flow's generation, so an element that has become another flow meanwhile is
/// not taken for this one.
#[inline(always)]
pub fn delete<A: Family>(
    forward_key: &FlowKey<A>,
    forward: &mut Flow<A>,
    dead: StateWord,
) -> Result<(), ()> {
    if !swap(&mut forward.state, dead, dead.with_phase(Phase::Deleting)) {
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
        let _ = A::flows().remove(forward_key);
        return Err(());
    }
    // A failure leaves an entry without its other half, which the sweep finds.
    let _ = A::flows().remove(forward_key);
    port::release(&reverse_key.reversed());
    count::add_bytes(cluster, backend, bytes_in, bytes_out);
    Ok(())
}

#[inline(always)]
fn state_of<A: Family>(entry: &Flow<A>) -> StateWord {
    // SAFETY: a reference is readable; volatile, as another CPU may swap it.
    unsafe { core::ptr::read_volatile(&raw const entry.state) }
}

/// Swaps a flow's state; whether it was `old`.
#[inline(always)]
pub fn swap(at: *mut StateWord, old: StateWord, new: StateWord) -> bool {
    // SAFETY: the state of a map's value; StateWord is a transparent u32.
    unsafe { swap_u32(at.cast(), old.0, new.0) }
}
