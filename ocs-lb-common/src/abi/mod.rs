//! Every type that lies in a map: `repr(C)`, fixed width, no implicit padding.
//!
//! Integers are in host order unless their type is an address or a
//! [`Be16`](crate::address::Be16). A byte that holds a choice is a plain `u8`
//! with a conversion, so that a corrupt map cannot be undefined behaviour.
//! `docs/maps.md` says who writes and who reads each.

mod backend;
mod cluster;
mod event;
mod flow;
mod kill;
mod next_hop;
mod pending;
mod ports;
mod service;
mod source;
mod sticky;

pub use backend::{Backend, SNAT_ADDRESSES};
pub use cluster::{
    Balance, Cluster, ClusterLoad, ClusterState, Correction, Load, MAX_BACKENDS, Recount,
    RefuseAction, Slot, Unknown, Unserved, backend_index,
};
pub use event::{Event, EventKind, Reason, Settings};
pub use flow::{Flow, FlowKey, REVERSE, STRIPPED};
pub use kill::{ANY, Kill, KillReason, KillReport, KillRequest, is_client as kills_client};
pub use next_hop::{FIRST_LEARNED, LastHopKey, LinkInfo, NextHop, NextHopKey, Tag, Tags};
pub use pending::{OPTIONS, Pending, TRIED};
pub use ports::{LEAVES, PortMap, SnatKey};
pub use service::{ANY_PORT, AddressFlags, Service, ServiceKey, choice};
pub use source::SourceKey;
pub use sticky::{StickyKey, StickyValue};

/// Version of everything in this module; part of every pin's path.
pub const ABI_VERSION: u32 = 4;

/// Places in the ring of flows that rest; a power of two, and twice as many as
/// the flow table has room for beside what lives.
pub const RESTING: u32 = 131_072;

/// Lists of sources at most; 0 is no list.
pub const ACCESS_LISTS: u32 = 4096;

/// Sources whose pace is remembered, of all clusters.
pub const SOURCES: u32 = 65_536;

/// Slots of attached interfaces: the counters hold this many.
pub const INTERFACE_SLOTS: u32 = 64;

/// Interface indexes are taken modulo this to find a slot.
pub const INTERFACE_INDEX_MASK: u32 = 4095;

/// Bit of an interface's slot: its driver holds back what `XDP_TX` sends until
/// something else wakes its peer, so redirect to the same interface instead.
/// veth does, unless the peer has an XDP program of its own
/// (`drivers/net/veth.c`: `veth_xdp_flush`).
pub const INTERFACE_NO_TX: u32 = 1 << 31;

/// `bpf_map_update_elem`: fail with `EEXIST` where the key is there already
/// (`include/uapi/linux/bpf.h`).
pub const BPF_NOEXIST: u64 = 1;

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "the one place that vouches for plain bytes")]
mod pod {
    use super::*;
    use crate::address::{V4, V6};

    macro_rules! pod {
        ($($ty:ty),* $(,)?) => {
            $(
                // SAFETY: repr(C) of fixed-width integers and byte arrays
                // without padding; any bit pattern is a value.
                unsafe impl aya::Pod for $ty {}
            )*
        };
    }

    pod!(
        V4,
        V6,
        FlowKey<V4>,
        FlowKey<V6>,
        Flow<V4>,
        Flow<V6>,
        Backend<V4>,
        Backend<V6>,
        Cluster,
        ClusterLoad,
        Correction,
        Event<V4>,
        Event<V6>,
        Kill<V4>,
        Kill<V6>,
        KillReport,
        KillRequest,
        Pending<V4>,
        Pending<V6>,
        Recount,
        Settings,
        LinkInfo,
        LastHopKey,
        NextHop,
        NextHopKey<V4>,
        NextHopKey<V6>,
        PortMap,
        SnatKey<V4>,
        SnatKey<V6>,
        ServiceKey<V4>,
        ServiceKey<V6>,
        Service,
        AddressFlags,
        SourceKey<V4>,
        SourceKey<V6>,
        StickyKey<V4>,
        StickyKey<V6>,
        StickyValue,
        crate::access::Cell<V4>,
        crate::access::Cell<V6>,
        crate::sweep::Report,
        crate::rate::Budget,
    );
}
