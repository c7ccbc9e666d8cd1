//! Every map, declared once. `docs/maps.md` says who writes and who reads
//! each; the controller sets the sizes that depend on the configuration.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use ocs_lb_common::{
    abi::{
        ACCESS_LISTS, AddressFlags, Backend, Cluster, ClusterLoad, Correction, Event, Flow,
        FlowKey, INTERFACE_INDEX_MASK, INTERFACE_SLOTS, Kill, KillReport, KillRequest, LastHopKey,
        LinkInfo, NextHop, NextHopKey, Pending, PortMap, RESTING, Recount, SOURCES, Service,
        ServiceKey, Settings, SnatKey, SourceKey, StickyKey, StickyValue, Tags,
    },
    access::Cell,
    address::{Address, Be16, V4},
    parse::{IP_OFFSET, Packet},
    rate::Budget,
    redispatch,
    sweep::Report,
    track::{Count, StateWord},
    translate::Translate,
    verdict::SLOTS,
    wire::{Frame, Ipv4, SynOptions},
};

use crate::{
    access::Fast,
    place::{Place, Refusal, Wanted},
    reuse::Reused,
    slow,
    time::{Now, Reading},
};

/// Bytes of the ring of events.
pub const EVENTS_BYTES: usize = 1024 * 1024;

/// `BPF_F_INNER_MAP`: those of one outer map may differ in size
/// (`include/uapi/linux/bpf.h`).
const INNER_MAP: usize = 1 << 12;

const COUNTER_SLOTS: usize = (INTERFACE_SLOTS * SLOTS) as usize;

/// Flows, both directions. A plain hash: nothing is ever evicted.
pub type Flows<A> = HashMap<FlowKey<A>, Flow<A>, 65_536>;
/// Our addresses.
pub type Addresses<A> = HashMap<A, AddressFlags, 4096>;
/// Served ports.
pub type Services<A> = HashMap<ServiceKey<A>, Service, 65_536>;
/// Lists of sources. The controller makes each as large as it is; this one is
/// only their pattern.
pub type Lists<A> = ArrayOfMaps<List<A>, { ACCESS_LISTS as usize }>;
/// One list: see [`ocs_lb_common::access`].
pub type List<A> = Array<Cell<A>, 1, INNER_MAP>;
/// Sources and their pace of new connections.
pub type Sources<A> = LruHashMap<SourceKey<A>, u64, { SOURCES as usize }>;
/// Backends by cluster and slot.
pub type Backends<A> = Array<Backend<A>, 65_536>;
/// Clients and their backends, a table for each cluster. The controller makes
/// each as large as its cluster wants; this one is only their pattern.
pub type Sticky<A> = ArrayOfMaps<StickyTable<A>, 256>;
/// One cluster's clients.
pub type StickyTable<A> = LruHashMap<StickyKey<A>, StickyValue, 1>;
/// Clients whose first connection is under way, and the backend it goes to.
pub type PendingSticky<A> = LruHashMap<StickyKey<A>, StickyValue, 65_536>;
/// The ring of half-open flows.
pub type HalfOpen<A> = Array<Pending<A>, 65_536>;
/// Flows that rest, by the keys of their reverse entries, in the order in which
/// they came to it.
pub type Resting<A> = Array<FlowKey<A>, { RESTING as usize }>;
/// Flows that were killed, for the controller to tell both sides.
pub type Kills<A> = RingBuf<Kill<A>, { 4 * 1024 * 1024 }>;
/// Room for what is too large for the stack: one for packets, one for walks.
pub type Rooms<A> = PerCpuArray<Room<A>, 2>;
/// Destinations of SNAT: index into [`PORT_MAPS`].
pub type Destinations<A> = HashMap<SnatKey<A>, u32, 4096>;
/// Neighbours: index into [`NEXT_HOPS`].
pub type NextHopIds<A> = HashMap<NextHopKey<A>, u32, 65_536>;

/// What the datapath tells the controller.
pub type Events<A> = RingBuf<Event<A>, EVENTS_BYTES>;

#[btf_map]
static FLOWS4: Flows<V4> = Flows::new();
#[btf_map]
static ADDRESSES4: Addresses<V4> = Addresses::new();
#[btf_map]
static SERVICES4: Services<V4> = Services::new();
#[btf_map]
static ACCESS4: Lists<V4> = Lists::new();
#[btf_map]
static SOURCES4: Sources<V4> = Sources::new();
#[btf_map]
static BACKENDS4: Backends<V4> = Backends::new();
#[btf_map]
static STICKY4: Sticky<V4> = Sticky::new();
#[btf_map]
static PENDING_STICKY4: PendingSticky<V4> = PendingSticky::new();
#[btf_map]
static HALF_OPEN4: HalfOpen<V4> = HalfOpen::new();
#[btf_map]
static RESTING4: Resting<V4> = Resting::new();
#[btf_map]
static KILLS4: Kills<V4> = Kills::new();
#[btf_map]
static ROOM4: Rooms<V4> = Rooms::new();
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
/// How frames leave, by index of the interface that a route names.
#[btf_map]
pub static LINKS: HashMap<u32, LinkInfo, 4096> = HashMap::new();
/// Senders that answers go back to, with `auto_last_hop`: index into
/// [`NEXT_HOPS`].
#[btf_map]
pub static LAST_HOPS: HashMap<LastHopKey, u32, 4096> = HashMap::new();
/// The VLAN tags of the packet under way, where it had any.
#[btf_map]
pub static TAGS: PerCpuArray<Tags, 1> = PerCpuArray::new();
/// Slot of each attached interface plus one, by index modulo 4096.
#[btf_map]
pub static INTERFACES: Array<u32, { INTERFACE_INDEX_MASK as usize + 1 }> = Array::new();
/// Packets by interface slot and verdict.
#[btf_map]
pub static COUNTERS: PerCpuArray<u64, COUNTER_SLOTS> = PerCpuArray::new();
/// What each CPU used of its rates: 0 resets, 1 ICMP errors.
#[btf_map]
pub static BUDGETS: PerCpuArray<Budget, 2> = PerCpuArray::new();
/// The clock as each CPU read it last.
#[btf_map]
pub static CLOCK: PerCpuArray<Reading, 1> = PerCpuArray::new();
/// The time of tests that make their own, in nanoseconds.
#[btf_map]
pub static TEST_CLOCK: Array<u64, 1> = Array::new();
/// Cursors: 0 next hops, 1 port maps, 2 half-open flows, 3 flows that came to
/// rest, 4 of these, those that no longer count.
#[btf_map]
pub static CURSORS: Array<u32, 5> = Array::new();
/// Flows as the last sweep counted them, by cluster id. The controller sets
/// them to zero before a sweep.
#[btf_map]
pub static RECOUNT: Array<Recount, 256> = Array::new();
/// The repair that the next run of `ocs_lb_correct` makes.
#[btf_map]
pub static CORRECTION: Array<Correction, 1> = Array::new();
/// What the next run of `ocs_lb_kill` ends.
#[btf_map]
pub static KILL_REQUEST: Array<KillRequest, 1> = Array::new();
/// What the last run of `ocs_lb_kill` did.
#[btf_map]
pub static KILL_REPORT: Array<KillReport, 1> = Array::new();
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

/// Index of [`CURSORS`] for next hops.
pub const CURSOR_NEXT_HOPS: u32 = 0;
/// Index of [`CURSORS`] for port maps.
pub const CURSOR_PORT_MAPS: u32 = 1;
/// Index of [`CURSORS`] for the ring of half-open flows.
pub const CURSOR_HALF_OPEN: u32 = 2;
/// Index of [`CURSORS`] for flows that come to rest.
pub const CURSOR_RESTING: u32 = 3;
/// Index of [`CURSORS`] for the oldest of these that may still rest.
pub const CURSOR_RECLAIMED: u32 = 4;

/// What the steps of the slow way leave each other.
#[repr(C)]
pub struct Room<A> {
    /// Client to backend.
    pub forward: Flow<A>,
    /// Backend to client.
    pub reverse: Flow<A>,
    /// Its place in the ring.
    pub pending: Pending<A>,
    /// What it wants.
    pub wanted: Wanted<A>,
    /// What it gets.
    pub place: Place<A>,
    /// What its SYN says.
    pub options: SynOptions,
    /// Its place in the ring plus one; 0 is none.
    pub at: u32,
    /// Of a flow that moves: its state word.
    pub word: StateWord,
    /// Index of the next hop to the client.
    pub back: u16,
    /// Of a flow that moves or ends: a [`Reason`](ocs_lb_common::abi::Reason).
    pub reason: u8,
    /// Of a flow that moves: 1, the backend is to blame.
    pub blamed: u8,
    /// Of a flow that ends: what its counts lose.
    pub count: Count,
    /// Of a flow that ends or is established: the tuple of its client's packets.
    pub closing: FlowKey<A>,
    /// Of a flow that ends or is established: when.
    pub closed: Now,
}

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
    /// Lists of sources.
    fn lists() -> &'static Lists<Self>;
    /// Sources and their pace.
    fn sources() -> &'static Sources<Self>;
    /// Backends.
    fn backends() -> &'static Backends<Self>;
    /// Clients and their backends, by cluster.
    fn sticky() -> &'static Sticky<Self>;
    /// Clients whose first connection is under way.
    fn pending_sticky() -> &'static PendingSticky<Self>;
    /// The ring of half-open flows.
    fn half_open() -> &'static HalfOpen<Self>;
    /// The ring of flows that rest.
    fn resting() -> &'static Resting<Self>;
    /// Flows that were killed.
    fn kills() -> &'static Kills<Self>;
    /// Room for a new flow.
    fn room() -> &'static Rooms<Self>;
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
    /// [`crate::flow::rest`] and [`crate::flow::close`] for one of this CPU's
    /// rooms.
    fn close(room: u32);
    /// [`crate::flow::promoted`] for this CPU's room.
    fn promoted();
    /// [`crate::access::listed`].
    fn listed(list: u16, source: &Self) -> u32;
    /// [`crate::access::service`].
    fn service(to: &Self, port: Be16, any: bool, source: &Self) -> Option<Service>;
    /// [`crate::access::paced`] for this CPU's room.
    fn paced() -> Option<Fast>;
    /// [`crate::place::backend`] for this CPU's room.
    fn choose_backend() -> Result<(), Refusal>;
    /// [`crate::place::port`] for this CPU's room.
    fn allocate_port() -> bool;
    /// A free port for this CPU's room, or 0.
    fn claim_port() -> u16;
    /// A resting port for this CPU's room.
    fn reuse_port(any: bool) -> Option<Reused>;
    /// A half-open flow's SYN, parsed.
    fn syn_packet(pending: &Pending<Self>) -> Packet<Self>;
    /// What its options say.
    fn syn_options(pending: &Pending<Self>, timestamp: u32) -> SynOptions;
    /// Length of the frame that carries it.
    fn syn_len(pending: &Pending<Self>) -> usize;
    /// Writes it over a frame of that length.
    fn write_syn(frame: &mut impl Frame, pending: &Pending<Self>) -> Option<()>;
    /// Bytes between the fixed part of a packet's IP header and TCP.
    fn options_len(packet: &Packet<Self>) -> usize;
    /// Writes the RST that answers a packet; the new length of the frame.
    fn write_reset(frame: &mut impl Frame, packet: &Packet<Self>) -> Option<usize>;
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
    fn lists() -> &'static Lists<V4> {
        &ACCESS4
    }
    #[inline(always)]
    fn sources() -> &'static Sources<V4> {
        &SOURCES4
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
    fn pending_sticky() -> &'static PendingSticky<V4> {
        &PENDING_STICKY4
    }
    #[inline(always)]
    fn half_open() -> &'static HalfOpen<V4> {
        &HALF_OPEN4
    }
    #[inline(always)]
    fn resting() -> &'static Resting<V4> {
        &RESTING4
    }
    #[inline(always)]
    fn kills() -> &'static Kills<V4> {
        &KILLS4
    }
    #[inline(always)]
    fn room() -> &'static Rooms<V4> {
        &ROOM4
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
    fn close(room: u32) {
        slow::ocs_lb_rest4(room);
        slow::ocs_lb_close4(room);
    }
    #[inline(always)]
    fn promoted() {
        slow::ocs_lb_promoted4();
    }
    #[inline(always)]
    fn listed(list: u16, source: &Self) -> u32 {
        slow::ocs_lb_listed4(list as u32, u32::from_ne_bytes(source.0))
    }
    #[inline(always)]
    fn service(to: &Self, port: Be16, any: bool, source: &Self) -> Option<Service> {
        let port = u16::from_ne_bytes(port.0) as u32;
        let (to, source) = (u32::from_ne_bytes(to.0), u32::from_ne_bytes(source.0));
        Service::from_code(slow::ocs_lb_service4(to, port, any as u32, source))
    }
    #[inline(always)]
    fn paced() -> Option<Fast> {
        Fast::from_code(slow::ocs_lb_paced4())
    }
    #[inline(always)]
    fn choose_backend() -> Result<(), Refusal> {
        Refusal::from_code(slow::ocs_lb_backend4())
    }
    #[inline(always)]
    fn allocate_port() -> bool {
        slow::ocs_lb_port4() != 0
    }
    #[inline(always)]
    fn claim_port() -> u16 {
        slow::ocs_lb_claim4() as u16
    }
    #[inline(always)]
    fn reuse_port(any: bool) -> Option<Reused> {
        let reused = Reused::from_code(slow::ocs_lb_reuse4(any as u32))?;
        (slow::ocs_lb_evict4(reused.port as u32) != 0).then_some(reused)
    }
    #[inline(always)]
    fn syn_packet(pending: &Pending<V4>) -> Packet<V4> {
        redispatch::packet_ipv4(pending)
    }
    #[inline(always)]
    fn syn_options(pending: &Pending<V4>, timestamp: u32) -> SynOptions {
        redispatch::options_ipv4(pending, timestamp)
    }
    #[inline(always)]
    fn syn_len(pending: &Pending<V4>) -> usize {
        redispatch::frame_len_ipv4(pending)
    }
    #[inline(always)]
    fn write_syn(frame: &mut impl Frame, pending: &Pending<V4>) -> Option<()> {
        redispatch::write_ipv4(frame, pending)
    }
    #[inline(always)]
    fn options_len(packet: &Packet<V4>) -> usize {
        packet.tcp_offset - IP_OFFSET - Ipv4::LEN
    }
    #[inline(always)]
    fn write_reset(frame: &mut impl Frame, packet: &Packet<V4>) -> Option<usize> {
        ocs_lb_common::reset::write_ipv4(frame, packet)?;
        Some(ocs_lb_common::reset::IPV4_LEN)
    }
}
