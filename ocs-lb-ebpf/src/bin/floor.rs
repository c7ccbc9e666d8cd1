//! The measure of the datapath: the least that any such program has to do.
//!
//! `floor` rewrites a packet by one lookup in a hash of the flow map's shape
//! and sends it back; it checks little, writes no state and counts nothing.
//! `empty` only sends back. `outer` gives either, or the datapath, a fresh
//! packet in each run of a repeated test run.

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

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS, XDP_TX},
    btf_maps::{Array, HashMap, ProgramArray},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use ocs_lb_common::{
    abi::Flow,
    address::{Be16, V4},
};

/// Bytes of a bench frame.
const FRAME: usize = 60;
/// Ethernet, IPv4 and TCP headers without options.
const HEADERS: usize = 54;

/// One prepared frame; the last four bytes are not sent.
#[repr(C, align(8))]
pub struct Prepared([u64; 8]);

/// Where `outer` is, and how many frames there are (a power of two) minus one.
#[repr(C)]
pub struct Turn {
    next: u32,
    mask: u32,
}

/// Flows, in the shape of the datapath's map.
#[btf_map]
static FLOOR_FLOWS: HashMap<[u64; 2], Flow<V4>, 131_072> = HashMap::new();
/// Frames in the order they are to come.
#[btf_map]
static FRAMES: Array<Prepared, 65_536> = Array::new();
/// The turn.
#[btf_map]
static TURN: Array<Turn, 1> = Array::new();
/// The program under test.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();

/// Sends every packet back.
#[xdp]
pub fn empty(_ctx: XdpContext) -> u32 {
    XDP_TX
}

/// Rewrites the next prepared frame over the packet and runs the target.
#[xdp]
pub fn outer(ctx: XdpContext) -> u32 {
    let Some(turn) = TURN.get_ptr_mut(0) else {
        return XDP_ABORTED;
    };
    // SAFETY: the bench is the only user.
    let at = unsafe {
        let at = (*turn).next & (*turn).mask;
        (*turn).next = at + 1;
        at
    };
    let Some(frame) = FRAMES.get(at) else {
        return XDP_ABORTED;
    };
    let start = ctx.data();
    if start + FRAME > ctx.data_end() {
        return XDP_ABORTED;
    }
    // SAFETY: 60 bytes of the packet, as just checked, and 64 of the value.
    unsafe {
        let to = start as *mut u64;
        for word in 0..7 {
            to.add(word).write_unaligned(frame.0[word]);
        }
        to.add(7).cast::<u32>().write_unaligned(frame.0[7] as u32);
        TARGET.tail_call(&ctx, 0);
    }
    XDP_ABORTED
}

/// The floor.
#[xdp]
pub fn floor(ctx: XdpContext) -> u32 {
    let start = ctx.data();
    if start + HEADERS > ctx.data_end() {
        return XDP_PASS;
    }
    let base = start as *mut u8;
    // SAFETY: every access lies within the 54 bytes checked above.
    unsafe {
        // IPv4 without options, TCP.
        if base.add(12).cast::<u16>().read_unaligned() != 0x0008
            || *base.add(14) != 0x45
            || *base.add(23) != 6
        {
            return XDP_PASS;
        }
        // A `FlowKey`: both addresses, then both ports and the protocol.
        let key = [
            base.add(26).cast::<u64>().read_unaligned(),
            u64::from(base.add(34).cast::<u32>().read_unaligned()) | 6 << 32,
        ];
        let Some(flow) = FLOOR_FLOWS.get_ptr(&key) else {
            return XDP_PASS;
        };
        let flow = &*flow;
        // The MACs change places.
        let (high, low) = (
            base.cast::<u32>().read_unaligned(),
            base.add(4).cast::<u16>().read_unaligned(),
        );
        base.cast::<u32>()
            .write_unaligned(base.add(6).cast::<u32>().read_unaligned());
        base.add(4)
            .cast::<u16>()
            .write_unaligned(base.add(10).cast::<u16>().read_unaligned());
        base.add(6).cast::<u32>().write_unaligned(high);
        base.add(10).cast::<u16>().write_unaligned(low);

        base.add(26).cast::<V4>().write_unaligned(flow.source);
        base.add(30).cast::<V4>().write_unaligned(flow.destination);
        base.add(34)
            .cast::<Be16>()
            .write_unaligned(flow.source_port);
        base.add(36)
            .cast::<Be16>()
            .write_unaligned(flow.destination_port);
        *base.add(22) -= 1;
        let ip = base.add(24).cast::<u16>();
        let sum = flow.l3_delta.apply(u16::from_be(ip.read_unaligned()));
        ip.write_unaligned(sum.to_be());
        let tcp = base.add(50).cast::<u16>();
        let sum = flow.l4_delta.apply(u16::from_be(tcp.read_unaligned()));
        tcp.write_unaligned(sum.to_be());
    }
    XDP_TX
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable, as in the datapath.
    loop {}
}

/// As the datapath's.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";
