//! Every map, declared once. `docs/maps.md` says who writes and who reads
//! each; the controller sets the sizes that depend on the configuration.

use aya_ebpf::{
    btf_maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use ocs_lb_common::{
    abi::{
        AddressFlags, Backend, Cluster, ClusterLoad, Event, Flow, FlowKey, INTERFACE_INDEX_MASK,
        INTERFACE_SLOTS, Kill, KillReport, KillRequest, NextHop, NextHopKey, PortMap, Service,
        ServiceKey, Settings, SnatKey, StickyKey, StickyValue,
    },
    address::{Address, V4},
    rate::Budget,
    sweep::Report,
    translate::Translate,
    verdict::SLOTS,
};

use crate::time::Reading;

const COUNTER_SLOTS: usize = (INTERFACE_SLOTS * SLOTS) as usize;

/// Flows, both directions. A plain hash: nothing is ever evicted.
pub type Flows<A> = HashMap<FlowKey<A>, Flow<A>, 65_536>;
/// Our addresses.
pub type Addresses<A> = HashMap<A, AddressFlags, 4096>;
/// Served ports.
pub type Services<A> = HashMap<ServiceKey<A>, Service, 65_536>;
/// Backends by cluster and slot.
pub type Backends<A> = Array<Backend<A>, 65_536>;
/// Clients and their backends; the only LRU.
pub type Sticky<A> = LruHashMap<StickyKey<A>, StickyValue, 65_536>;
/// Destinations of SNAT: index into [`PORT_MAPS`].
pub type Destinations<A> = HashMap<SnatKey<A>, u32, 4096>;
/// Neighbours: index into [`NEXT_HOPS`].
pub type NextHopIds<A> = HashMap<NextHopKey<A>, u32, 65_536>;

/// What the datapath tells the controller.
pub type Events<A> = RingBuf<Event<A>, { 1024 * 1024 }>;

/// Flows that were killed: what the controller tells their sides.
pub type KillRing<A> = RingBuf<Kill<A>, { 4 * 1024 * 1024 }>;

#[btf_map]
static FLOWS4: Flows<V4> = Flows::new();
#[btf_map]
static ADDRESSES4: Addresses<V4> = Addresses::new();
#[btf_map]
static SERVICES4: Services<V4> = Services::new();
#[btf_map]
static BACKENDS4: Backends<V4> = Backends::new();
#[btf_map]
static STICKY4: Sticky<V4> = Sticky::new();
#[btf_map]
static DESTINATIONS4: Destinations<V4> = Destinations::new();
#[btf_map]
static NEXT_HOP_IDS4: NextHopIds<V4> = NextHopIds::new();

/// Policy by cluster id.
#[btf_map]
pub static CLUSTERS: Array<Cluster, 256> = Array::new();
/// Counts by cluster id.
#[btf_map]
pub static LOADS: Array<ClusterLoad, 256> = Array::new();
/// The slab of SNAT port bitmaps.
#[btf_map]
pub static PORT_MAPS: Array<PortMap, 4096> = Array::new();
/// Next hops by index; 0 is none.
#[btf_map]
pub static NEXT_HOPS: Array<NextHop, 65_536> = Array::new();
/// Interfaces that take redirected packets, by interface index.
#[btf_map]
pub static DEVICES: DevMapHash<64> = DevMapHash::new();
/// Slot of each attached interface plus one, by index modulo 4096.
#[btf_map]
pub static INTERFACES: Array<u32, { INTERFACE_INDEX_MASK as usize + 1 }> = Array::new();
/// Packets by interface slot and verdict.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, COUNTER_SLOTS> = PerCpuArray::new();
/// What each CPU used of the rate of resets.
#[btf_map]
pub static RESET_BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();
/// The clock as each CPU read it last.
#[btf_map]
pub static CLOCK: PerCpuArray<Reading, 1> = PerCpuArray::new();
/// Allocation cursors: 0 next hops, 1 port maps.
#[btf_map]
pub static CURSORS: Array<u32, 2> = Array::new();
/// What the controller tells every program.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();
/// What the last sweep found.
#[btf_map]
pub static SWEEP_REPORT: Array<Report, 1> = Array::new();
#[btf_map]
static EVENTS4: Events<V4> = Events::new();
/// Events that found the ring full.
#[btf_map]
pub static EVENTS_LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Which flows the next walk of `ocs_lb_kill` ends.
#[btf_map]
pub static KILL_REQUEST: Array<KillRequest, 1> = Array::new();
/// What the last walk of `ocs_lb_kill` did.
#[btf_map]
pub static KILL_REPORT: Array<KillReport, 1> = Array::new();
#[btf_map]
pub static KILLS4: KillRing<V4> = KillRing::new();

/// Index of [`CURSORS`] for next hops.
pub const CURSOR_NEXT_HOPS: u32 = 0;
/// Index of [`CURSORS`] for port maps.
pub const CURSOR_PORT_MAPS: u32 = 1;

/// A family that is wired: it has maps, and the kernel's routing table knows it.
pub trait Family: Address + Translate {
    /// Address family number for `bpf_fib_lookup`.
    const AF: u8;

    /// Flows.
    fn flows() -> &'static Flows<Self>;
    /// Our addresses.
    fn addresses() -> &'static Addresses<Self>;
    /// Served ports.
    fn services() -> &'static Services<Self>;
    /// Backends.
    fn backends() -> &'static Backends<Self>;
    /// Clients and their backends.
    fn sticky() -> &'static Sticky<Self>;
    /// Destinations of SNAT.
    fn destinations() -> &'static Destinations<Self>;
    /// Neighbours.
    fn next_hop_ids() -> &'static NextHopIds<Self>;

    /// Events.
    fn events() -> &'static Events<Self>;

    /// The last word of the address in host order, for the log.
    fn log_word(self) -> u32;
    /// From the words of a `bpf_fib_lookup`, network byte order.
    fn from_fib(words: &[u32; 4]) -> Self;
    /// To the words of a `bpf_fib_lookup`, network byte order.
    fn to_fib(self) -> [u32; 4];
    /// Writes the RST that answers a packet; the new length of the frame.
    fn write_reset(
        frame: &mut crate::packet::XdpFrame<'_>,
        packet: &ocs_lb_common::parse::Packet<Self>,
    ) -> Option<usize>;
}

impl Family for V4 {
    /// `AF_INET`.
    const AF: u8 = 2;

    #[inline(always)]
    fn flows() -> &'static Flows<V4> {
        &FLOWS4
    }
    #[inline(always)]
    fn addresses() -> &'static Addresses<V4> {
        &ADDRESSES4
    }
    #[inline(always)]
    fn services() -> &'static Services<V4> {
        &SERVICES4
    }
    #[inline(always)]
    fn backends() -> &'static Backends<V4> {
        &BACKENDS4
    }
    #[inline(always)]
    fn sticky() -> &'static Sticky<V4> {
        &STICKY4
    }
    #[inline(always)]
    fn destinations() -> &'static Destinations<V4> {
        &DESTINATIONS4
    }
    #[inline(always)]
    fn next_hop_ids() -> &'static NextHopIds<V4> {
        &NEXT_HOP_IDS4
    }
    #[inline(always)]
    fn events() -> &'static Events<V4> {
        &EVENTS4
    }
    #[inline(always)]
    fn log_word(self) -> u32 {
        u32::from_be_bytes(self.0)
    }
    #[inline(always)]
    fn from_fib(words: &[u32; 4]) -> Self {
        V4(words[0].to_ne_bytes())
    }
    #[inline(always)]
    fn to_fib(self) -> [u32; 4] {
        [u32::from_ne_bytes(self.0), 0, 0, 0]
    }
    #[inline(always)]
    fn write_reset(
        frame: &mut crate::packet::XdpFrame<'_>,
        packet: &ocs_lb_common::parse::Packet<V4>,
    ) -> Option<usize> {
        ocs_lb_common::reset::write_ipv4(frame, packet)?;
        Some(ocs_lb_common::reset::IPV4_LEN)
    }
}
