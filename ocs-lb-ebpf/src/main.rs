//! The entry points. Each reads as a packet's way; nothing else is here.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the programs' macros write functions of their own, without their docs"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "keys go by reference: aya-ebpf 0.3 takes nothing else"
)]
#![expect(
    internal_features,
    reason = "atomics with a result exist for this target as intrinsics only"
)]
#![feature(core_intrinsics)]

mod access;
mod atomic;
mod count;
mod entries;
mod event;
mod flow;
mod forward;
mod icmp;
mod kill;
mod maps;
mod neighbor;
mod open;
mod packet;
mod place;
mod port;
mod reclaim;
mod redispatch;
mod reset;
mod reuse;
mod ring;
mod slow;
mod steps;
mod sticky;
mod sweep;
mod time;
mod vlan;

use aya_ebpf::{
    bindings::{TC_ACT_REDIRECT, TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::{classifier, raw_tracepoint, xdp},
    programs::{RawTracePointContext, TcContext, XdpContext},
};
use ocs_lb_common::{
    abi::Flow,
    address::V4,
    classify,
    icmp::Obstacle,
    parse::{Odd, Packet, parse_ether_type, parse_ipv4},
    track::{self, StateWord},
    verdict::Verdict,
    wire::{EtherType, timestamp_value},
};

use crate::{
    forward::Exit,
    maps::Family,
    packet::{Action, Medium, SkbFrame, Way, XdpFrame},
    slow::Next,
};

/// Every packet of an interface, as its driver has it.
#[xdp(frags)]
pub fn ocs_lb_xdp(ctx: XdpContext) -> u32 {
    way::<XdpFrame>(ctx.ctx)
}

/// Every packet of an interface, as the host's stack would get it.
#[classifier]
pub fn ocs_lb_tc(ctx: TcContext) -> i32 {
    SkbFrame::of(ctx.skb.skb).pull();
    match way::<SkbFrame>(ctx.skb.skb) {
        PASS => TC_ACT_UNSPEC,
        REDIRECT | TRANSMIT => TC_ACT_REDIRECT,
        _ => TC_ACT_SHOT,
    }
}

const PASS: u32 = Action::Pass as u32;
const REDIRECT: u32 = Action::Redirect as u32;
const TRANSMIT: u32 = Action::Transmit as u32;

/// From the first byte to the count. What becomes of the packet is an
/// [`Action`].
#[inline(always)]
fn way<M: Way<V4>>(context: *mut M::Context) -> u32 {
    let mut frame = M::of(context);
    let ingress = frame.ingress();
    let tagged = frame.has_tag() && frame.untag();
    let mut exit = match frame.plain() {
        Next::SLOW => frame.slow(),
        Next::ICMP => frame.icmp(),
        code => Exit::from_code(code),
    };
    if tagged {
        if exit.action == PASS && !frame.retag() {
            exit = Exit::of(Verdict::NoTagRoom);
        }
        vlan::forget();
    }
    count::verdict(ingress, exit.verdict);
    exit.action
}

/// A packet's way: parse, track, translate, forward. The code of its exit, or
/// [`Next::SLOW`] for what opens, ends or moves a flow or goes no further, or
/// [`Next::ICMP`].
#[inline(always)]
fn plain<M: Way<V4>>(frame: &mut M) -> u32 {
    let packet = match parse_ether_type(frame) {
        Ok(EtherType::IPV4) => match parse_ipv4(frame) {
            Ok(packet) => packet,
            Err(odd) => return unwalked(odd),
        },
        Ok(_) => return Exit::of(Verdict::FamilyNotWired).code(),
        Err(verdict) => return Exit::of(verdict).code(),
    };
    let now = time::now();
    if let Some((entry, word)) = flow::plain(&packet, now)
        && let Ok(exit) = send(frame, &packet, entry, word, now)
    {
        return exit.code();
    }
    Next::SLOW
}

/// Records the packet in its entry, whose state was `word`, and sends it on.
///
/// # Errors
/// What keeps it from going on; nothing is recorded then.
#[inline(always)]
fn send<M: Medium, A: Family>(
    frame: &mut M,
    packet: &Packet<A>,
    entry: &mut Flow<A>,
    word: StateWord,
    now: time::Now,
) -> Result<Exit, Obstacle> {
    let hop = match forward::next_hop(entry.next_hop) {
        Ok(hop) => hop,
        Err(verdict) => return Ok(Exit::of(verdict)),
    };
    if let Some(obstacle) = forward::obstacle(frame, packet, hop) {
        return Err(obstacle);
    }
    if flow::is_new_second(now.ticks, entry.last_seen) {
        let client = if entry.is_reverse() {
            entry.destination
        } else {
            packet.key.source
        };
        sticky::refresh(&sticky::key(client, entry.cluster), entry.backend, now);
    }
    let timestamp = timestamp_value(frame, packet.tcp_offset, packet.tcp_header_len);
    track::touch(entry, now.ticks, &packet.segment, packet.ip_len, timestamp);
    if A::translate(frame, packet, entry).is_none() {
        return Ok(Exit::of(Verdict::Malformed));
    }
    // A freed element may become another flow under our eyes; what was written
    // to the packet is then worthless.
    if !flow::state_of(entry).is_same_flow(word) {
        return Ok(Exit::of(Verdict::Race));
    }
    Ok(forward::forward(frame, hop))
}

/// A packet that is not whole TCP: dropped or passed by its address alone,
/// unless it is ICMP.
#[inline(always)]
fn unwalked(odd: Odd<V4>) -> u32 {
    let verdict = match odd {
        Odd::Pass(verdict) => verdict,
        Odd::IfOurs {
            source,
            destination,
            verdict,
        } => {
            // SAFETY: a value of a map that only the controller writes.
            let Some(address) = (unsafe { V4::addresses().get(&destination) }) else {
                return Exit::of(Verdict::NotOurs).code();
            };
            match open::source(&source) {
                Ok(()) if matches!(verdict, Verdict::NotTcp) => return Next::ICMP,
                Ok(()) => classify::odd(verdict, *address),
                Err(verdict) => verdict,
            }
        }
    };
    Exit::of(verdict).code()
}

/// One walk over the flow map, run by the controller through test-run: from a
/// raw tracepoint it holds neither softirq nor a lock that packets need.
#[raw_tracepoint]
pub fn ocs_lb_sweep(_ctx: RawTracePointContext) -> i32 {
    sweep::sweep::<V4>()
}

/// One walk over the flow map that ends the flows of `KILL_REQUEST`.
#[raw_tracepoint]
pub fn ocs_lb_kill(_ctx: RawTracePointContext) -> i32 {
    kill::walk::<V4>()
}

/// Repairs the counts of one backend, as `CORRECTION` says.
#[raw_tracepoint]
pub fn ocs_lb_correct(_ctx: RawTracePointContext) -> i32 {
    sweep::correct()
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the core has no panicking path, and the verifier would
    // refuse this loop if one were left.
    loop {}
}

/// The kernel lets only GPL-compatible programs call the helpers used here.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
