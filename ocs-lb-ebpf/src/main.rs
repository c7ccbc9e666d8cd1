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

mod atomic;
mod count;
mod flow;
mod forward;
mod maps;
mod neighbor;
mod open;
mod packet;
mod port;
mod reset;
mod sweep;
mod time;

use aya_ebpf::{
    macros::{raw_tracepoint, xdp},
    programs::{RawTracePointContext, XdpContext},
};
use ocs_lb_common::{
    address::V4,
    parse::{Odd, Packet, parse_ether_type, parse_ipv4},
    track,
    verdict::Verdict,
    wire::{EtherType, timestamp_value},
};

use crate::{forward::Exit, maps::Family, packet::XdpFrame};

/// Every packet of an attached interface.
#[xdp]
pub fn ocs_lb_xdp(ctx: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&ctx);
    let exit = match parse_ether_type(&frame) {
        Ok(EtherType::IPV4) => match parse_ipv4(&frame) {
            Ok(packet) => walk::<V4>(&mut frame, &packet),
            Err(odd) => unwalked(odd),
        },
        Ok(_) => Exit::of(Verdict::FamilyNotWired),
        Err(verdict) => Exit::of(verdict),
    };
    count::verdict(ctx.ingress_ifindex() as u32, exit.verdict);
    exit.action
}

/// A packet's way: track, or open a new flow; translate; forward.
#[inline(always)]
fn walk<A: Family>(frame: &mut XdpFrame<'_>, packet: &Packet<A>) -> Exit {
    let now = time::now();
    match flow::track(frame, packet, now) {
        Ok(Some(entry)) => send(frame, packet, entry, now),
        Ok(None) => open::open(frame, packet, now),
        Err(verdict) => Exit::of(verdict),
    }
}

/// Records the packet in its entry and sends it on.
#[inline(always)]
fn send<A: Family>(
    frame: &mut XdpFrame<'_>,
    packet: &Packet<A>,
    entry: &mut ocs_lb_common::abi::Flow<A>,
    now: time::Now,
) -> Exit {
    if packet.ttl <= 1 {
        return Exit::of(Verdict::TtlExceeded);
    }
    let timestamp = timestamp_value(frame, packet.tcp_offset, packet.tcp_header_len);
    track::touch(entry, now.ticks, &packet.segment, packet.ip_len, timestamp);
    if A::translate(frame, packet, entry).is_none() {
        return Exit::of(Verdict::Malformed);
    }
    forward::forward(frame, entry.next_hop)
}

/// A packet that is not whole TCP: dropped or passed by its address alone.
#[inline(always)]
fn unwalked<A: Family>(odd: Odd<A>) -> Exit {
    match odd {
        Odd::Pass(verdict) => Exit::of(verdict),
        Odd::IfOurs {
            destination,
            verdict,
        } => {
            if A::addresses().get_ptr(&destination).is_some() {
                Exit::of(verdict)
            } else {
                Exit::of(Verdict::NotOurs)
            }
        }
    }
}

/// One walk over the flow map, run by the controller through test-run: from a
/// raw tracepoint it holds neither softirq nor a lock that packets need.
#[raw_tracepoint]
pub fn ocs_lb_sweep(_ctx: RawTracePointContext) -> i32 {
    sweep::sweep::<V4>()
}

/// One walk over the flow map that ends what the controller asked for, run as
/// the sweep is.
#[raw_tracepoint]
pub fn ocs_lb_kill(_ctx: RawTracePointContext) -> i32 {
    0
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
