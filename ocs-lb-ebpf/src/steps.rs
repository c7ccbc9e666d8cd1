//! The steps of the slow way that look at the packet, once for each medium.
//!
//! A global function takes the context by the type that its program's kind has
//! (`kernel/bpf/btf.c`, `btf_prepare_func_args`), so one cannot serve both. The
//! bodies are the same.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use ocs_lb_common::{
    abi::STRIPPED,
    address::V4,
    parse::{Packet, parse_ipv4},
    verdict::Verdict,
    wire::{Flags, syn_options},
};

use crate::{
    flow,
    forward::Exit,
    icmp,
    neighbor::next_hop_towards,
    open,
    packet::{Medium, SkbFrame, Way, XdpFrame},
    place::Refusal,
    redispatch, reset,
    slow::{self, Next, RECLAIMED, TRIES},
    time::{self, Now},
    vlan,
};

/// Calls a step with a packet parsed anew.
#[inline(always)]
fn with_packet<M: Medium>(
    context: *mut M::Context,
    step: impl FnOnce(&mut M, &Packet<V4>, Now) -> Next,
) -> u32 {
    let mut frame = M::of(context);
    let next = match parse_ipv4(&frame) {
        Ok(packet) => step(&mut frame, &packet, time::now()),
        Err(_) => Verdict::Malformed.into(),
    };
    next.code()
}

macro_rules! steps {
    ($module:ident, $medium:ident, $context:ident, $prefix:literal) => {
        mod $module {
            use super::*;

            /// All steps in their order. Not a function of its own: its frame
            /// would count against the stack of every step (32 bytes on Linux
            /// 6.1).
            #[inline(always)]
            fn slow(context: *mut $context) -> u32 {
                let mut code = Next::AGAIN;
                for _ in 0..TRIES {
                    code = change(context);
                    if code != Next::AGAIN {
                        break;
                    }
                }
                if code == Next::OPEN {
                    code = admit(context);
                    if code == Next::FIND {
                        slow::ocs_lb_ring4();
                        let refusal = slow::ocs_lb_find4();
                        code = if refusal == 0 {
                            write(context)
                        } else {
                            refuse(context, refusal)
                        };
                        for _ in 0..RECLAIMED {
                            if code != Next::FULL || slow::ocs_lb_reclaim4() == 0 {
                                break;
                            }
                            code = write(context);
                        }
                        if code == Next::FULL {
                            code = slow::ocs_lb_full4();
                        }
                    }
                } else if code == Next::MOVE {
                    code = if slow::ocs_lb_find4() == 0 {
                        relocate(context)
                    } else {
                        stay(context)
                    };
                }
                if code == Next::SEND {
                    strip(context);
                    code = send(context);
                }
                match code {
                    Next::ANSWER => answer(context),
                    Next::TELL => tell(context),
                    Next::AGAIN => Next::from(Verdict::Race).code(),
                    code => code,
                }
            }

            /// The same for what may be ICMP.
            #[inline(always)]
            fn message(context: *mut $context) -> u32 {
                let mut code = receive(context);
                if code == Next::MOVE {
                    code = if slow::ocs_lb_find4() == 0 {
                        relocate(context)
                    } else {
                        pass_on(context)
                    };
                }
                match code {
                    Next::ECHO => echo(context),
                    Next::SEND => send(context),
                    code => code,
                }
            }

            impl Way<V4> for $medium {
                #[inline(always)]
                fn plain(&mut self) -> u32 {
                    plain(self.context())
                }
                #[inline(always)]
                fn slow(&self) -> Exit {
                    Exit::from_code(slow(self.context()))
                }
                #[inline(always)]
                fn icmp(&self) -> Exit {
                    Exit::from_code(message(self.context()))
                }
                #[inline(always)]
                fn route(&self, from: V4, to: V4) -> Result<u16, Verdict> {
                    let (from, to) = (u32::from_ne_bytes(from.0), u32::from_ne_bytes(to.0));
                    slow::route(route(self.context(), from, to))
                }
                #[inline(always)]
                fn read_options(&self) {
                    options(self.context());
                }
                #[inline(always)]
                fn untag(&self) -> bool {
                    untag(self.context()) != 0
                }
                #[inline(always)]
                fn retag(&self) -> bool {
                    retag(self.context()) != 0
                }
            }

            /// [`crate::plain`] for IPv4. Apart, as what it has on the stack
            /// would lie beneath every step of the slow way.
            #[unsafe(export_name = concat!($prefix, "plain4"))]
            #[inline(never)]
            extern "C" fn plain(context: *mut $context) -> u32 {
                crate::plain(&mut $medium::of(context))
            }

            /// [`flow::change`] for IPv4.
            #[unsafe(export_name = concat!($prefix, "change4"))]
            #[inline(never)]
            extern "C" fn change(context: *mut $context) -> u32 {
                with_packet::<$medium>(context, flow::change)
            }

            /// [`next_hop_towards`] for IPv4 addresses as they lie in a packet:
            /// the index, or a number for [`slow::route`].
            #[unsafe(export_name = concat!($prefix, "route4"))]
            #[inline(never)]
            extern "C" fn route(context: *mut $context, from: u32, to: u32) -> u32 {
                let address = |word: u32| V4(word.to_ne_bytes());
                let frame = $medium::of(context);
                slow::route_code(next_hop_towards(&frame, address(from), address(to)))
            }

            /// Reads the options of an IPv4 packet into this CPU's room; 0.
            #[unsafe(export_name = concat!($prefix, "options4"))]
            #[inline(never)]
            extern "C" fn options(context: *mut $context) -> u32 {
                let frame = $medium::of(context);
                let Some(room) = open::room::<V4>() else {
                    return 0;
                };
                if let Ok(packet) = parse_ipv4(&frame) {
                    room.options = syn_options(&frame, packet.tcp_offset, packet.tcp_header_len);
                }
                0
            }

            /// [`crate::send`] for IPv4. The packet may be another one than
            /// before, of another flow.
            #[unsafe(export_name = concat!($prefix, "send4"))]
            #[inline(never)]
            extern "C" fn send(context: *mut $context) -> u32 {
                with_packet::<$medium>(context, |frame, packet, now| match flow::entry(packet) {
                    Some(entry) => {
                        let word = flow::state_of(entry);
                        match crate::send(frame, packet, entry, word, now) {
                            Ok(exit) => Next::Exit(exit),
                            Err(_) => Next::Tell,
                        }
                    }
                    None => Verdict::Race.into(),
                })
            }

            /// [`open::strip_again`] for IPv4, where the packet's flow wants
            /// it; 0.
            #[unsafe(export_name = concat!($prefix, "strip4"))]
            #[inline(never)]
            extern "C" fn strip(context: *mut $context) -> u32 {
                let mut frame = $medium::of(context);
                if let Ok(packet) = parse_ipv4(&frame)
                    && packet.segment.flags.any(Flags::SYN)
                    && let Some(entry) = flow::entry(&packet)
                    && entry.flags & STRIPPED != 0
                {
                    open::strip_again(&mut frame, &packet);
                }
                0
            }

            /// [`reset::send`] for IPv4, by the next hop in this CPU's room.
            #[unsafe(export_name = concat!($prefix, "answer4"))]
            #[inline(never)]
            extern "C" fn answer(context: *mut $context) -> u32 {
                with_packet::<$medium>(context, |frame, packet, _| match open::room::<V4>() {
                    Some(room) => Next::Exit(reset::send(frame, packet, room.back)),
                    None => Verdict::Inconsistent.into(),
                })
            }

            /// [`open::admit`] for IPv4.
            #[unsafe(export_name = concat!($prefix, "admit4"))]
            #[inline(never)]
            extern "C" fn admit(context: *mut $context) -> u32 {
                with_packet::<$medium>(context, open::admit)
            }

            /// [`open::refuse`] for IPv4.
            #[unsafe(export_name = concat!($prefix, "refuse4"))]
            #[inline(never)]
            extern "C" fn refuse(context: *mut $context, refusal: u32) -> u32 {
                with_packet::<$medium>(context, |frame, packet, now| {
                    let refusal = Refusal::from_code(refusal).err();
                    open::refuse(frame, packet, now, refusal.unwrap_or(Refusal::INCONSISTENT))
                })
            }

            /// [`open::write`] for IPv4.
            #[unsafe(export_name = concat!($prefix, "write4"))]
            #[inline(never)]
            extern "C" fn write(context: *mut $context) -> u32 {
                with_packet::<$medium>(context, open::write)
            }

            /// [`redispatch::relocate`] for IPv4.
            #[unsafe(export_name = concat!($prefix, "move4"))]
            #[inline(never)]
            extern "C" fn relocate(context: *mut $context) -> u32 {
                redispatch::relocate::<_, V4>(&mut $medium::of(context)).code()
            }

            /// [`redispatch::stay`] for IPv4.
            #[unsafe(export_name = concat!($prefix, "stay4"))]
            #[inline(never)]
            extern "C" fn stay(context: *mut $context) -> u32 {
                with_packet::<$medium>(context, redispatch::stay)
            }

            /// [`icmp::receive`].
            #[unsafe(export_name = concat!($prefix, "icmp4"))]
            #[inline(never)]
            extern "C" fn receive(context: *mut $context) -> u32 {
                icmp::receive(&mut $medium::of(context), time::now()).code()
            }

            /// [`icmp::echo`].
            #[unsafe(export_name = concat!($prefix, "echo4"))]
            #[inline(never)]
            extern "C" fn echo(context: *mut $context) -> u32 {
                icmp::echo(&mut $medium::of(context)).code()
            }

            /// [`icmp::stay`].
            #[unsafe(export_name = concat!($prefix, "icmp_stay4"))]
            #[inline(never)]
            extern "C" fn pass_on(context: *mut $context) -> u32 {
                icmp::stay(&mut $medium::of(context)).code()
            }

            /// [`icmp::tell`].
            #[unsafe(export_name = concat!($prefix, "tell4"))]
            #[inline(never)]
            extern "C" fn tell(context: *mut $context) -> u32 {
                with_packet::<$medium>(context, |frame, packet, now| {
                    icmp::tell(frame, packet, now).map_or_else(Next::from, Next::Exit)
                })
            }

            /// [`vlan::untag`]: 1 where it did.
            #[unsafe(export_name = concat!($prefix, "untag"))]
            #[inline(never)]
            extern "C" fn untag(context: *mut $context) -> u32 {
                vlan::untag(&mut $medium::of(context)) as u32
            }

            /// [`vlan::restore`]: 1 where it did.
            #[unsafe(export_name = concat!($prefix, "retag"))]
            #[inline(never)]
            extern "C" fn retag(context: *mut $context) -> u32 {
                vlan::restore(&mut $medium::of(context)) as u32
            }
        }
    };
}

steps!(xdp, XdpFrame, xdp_md, "ocs_lb_xdp_");
steps!(tc, SkbFrame, __sk_buff, "ocs_lb_tc_");
