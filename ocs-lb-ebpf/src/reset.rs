//! Answers with a RST, within their rate.

use ocs_lb_common::{parse::Packet, verdict::Verdict};

use crate::{
    forward::{Exit, forward, next_hop as next_hop_at},
    maps::{BUDGETS, Family, SETTINGS},
    packet::{Medium, Way},
    time::Now,
};

/// Index of [`BUDGETS`] for resets.
const BUDGET: u32 = 0;

/// Turns the packet into the RST that answers it and sends it back.
#[inline(always)]
pub fn answer<M: Way<A>, A: Family>(frame: &mut M, packet: &Packet<A>, now: Now) -> Exit {
    match try_answer(frame, packet, now) {
        Ok(exit) => exit,
        Err(verdict) => Exit::of(verdict),
    }
}

#[inline(always)]
fn try_answer<M: Way<A>, A: Family>(
    frame: &mut M,
    packet: &Packet<A>,
    now: Now,
) -> Result<Exit, Verdict> {
    let limit = SETTINGS
        .get(0)
        .map_or(0, |settings| settings.resets_per_cpu);
    let budget = BUDGETS.get_ptr_mut(BUDGET).ok_or(Verdict::Inconsistent)?;
    // SAFETY: a per-CPU value.
    if !unsafe { (*budget).take(now.ticks, limit) } {
        return Err(Verdict::ResetLimited);
    }
    let next_hop = frame.route(packet.key.destination, packet.key.source)?;
    Ok(send(frame, packet, next_hop))
}

/// The same where the way back is known, for packets of flows that are over:
/// each flow has its own, so no rate is needed.
#[inline(always)]
pub fn send<M: Medium, A: Family>(frame: &mut M, packet: &Packet<A>, next_hop: u16) -> Exit {
    let hop = match next_hop_at(next_hop) {
        Ok(hop) => hop,
        Err(verdict) => return Exit::of(verdict),
    };
    if !frame.cut_options(A::options_len(packet)) {
        return Exit::of(Verdict::Malformed);
    }
    let Some(len) = A::write_reset(frame, packet) else {
        return Exit::of(Verdict::Malformed);
    };
    if !frame.resize(len) {
        return Exit::of(Verdict::Malformed);
    }
    forward(frame, hop).as_answer(Verdict::Answered)
}
