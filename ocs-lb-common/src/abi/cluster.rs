//! Clusters: what the controller decided, and what the datapath counts.
//!
//! The two lie in maps of their own, because an update by the controller
//! replaces a whole value and would take counts back.

use crate::ticks::Ticks;

/// Backends of one cluster at most.
pub const MAX_BACKENDS: usize = 256;

/// Index of a backend's record in the array of all backends.
#[inline(always)]
pub const fn backend_index(cluster: u16, slot: u16) -> u32 {
    cluster as u32 * MAX_BACKENDS as u32 + slot as u32
}

/// The algorithm that finds a backend for a client without a sticky entry.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Fewest flows for its weight.
    LeastConn = 0,
    /// In turn, by weight.
    RoundRobin = 1,
}

/// How a refusal looks.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefuseAction {
    /// Silence.
    Drop = 0,
    /// A RST.
    Reset = 1,
}

/// What becomes of a packet of no flow that opens none.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// A RST, rate-limited.
    Reset = 0,
    /// Silence.
    Drop = 1,
    /// To the host's stack.
    Pass = 2,
}

/// Who gets what no flow knows. What keeps clients away is in the slots.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// The cluster's backends.
    Ready = 0,
    /// The host's stack.
    Pass = 1,
}

/// What becomes of a packet to an unserved port of a VIP.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// To the host's stack.
    Pass = 0,
    /// A RST, rate-limited.
    Reset = 1,
    /// Silence.
    Drop = 2,
}

/// One backend as the choice sees it; one aligned word, so that the kernel
/// never reads half of an update.
#[repr(C, align(4))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// Effective weight; 0 takes no client by the algorithm.
    pub weight: u16,
    /// [`Slot::STICKY`], [`Slot::STRICT`], [`Slot::RAMP`] or nothing.
    pub flags: u16,
}

impl Slot {
    /// Flag: clients with a sticky entry may come.
    pub const STICKY: u16 = 1;
    /// Flag: clients with a sticky entry are refused while none may come
    /// (`persist: strict`).
    pub const STRICT: u16 = 2;
    /// Flag: the backend came back a short while ago and its weight grows. Its
    /// share of new clients is that of its weight, however few flows it has.
    pub const RAMP: u16 = 4;
}

/// Policy of one cluster. Written by the controller, read by the datapath.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Number of slots in use.
    pub backends: u16,
    /// A [`Balance`].
    pub balance: u8,
    /// 1: source stickiness is on.
    pub sticky: u8,
    /// Flows the cluster may hold.
    pub max_connections: u32,
    /// Life of a sticky entry after its last use, in ticks.
    pub sticky_expire: u32,
    /// Life of a half-open flow, in ticks.
    pub connect_timeout: u32,
    /// Idle life of an established flow, in ticks.
    pub idle_timeout: u32,
    /// Idle life of a half-closed flow, in ticks.
    pub half_closed_timeout: u32,
    /// Sum of the slots' weights.
    pub total_weight: u32,
    /// Step of roundrobin through the weights; coprime to `total_weight`.
    pub stride: u32,
    /// A [`RefuseAction`]: at the limit.
    pub refuse_limit: u8,
    /// A [`RefuseAction`]: no SNAT port.
    pub refuse_snat: u8,
    /// A [`RefuseAction`]: no backend is ready.
    pub refuse_no_backend: u8,
    /// An [`Unknown`].
    pub unknown: u8,
    /// A SYN retransmission later than this after the last try may move the
    /// flow to another backend, in ticks.
    pub redispatch_after: u32,
    /// Resting flows that the cluster may keep before it prefers to reuse
    /// their ports.
    pub resting: u32,
    /// A [`ClusterState`].
    pub state: u8,
    /// A [`RefuseAction`]: the source is kept out.
    pub refuse_deny: u8,
    /// Zero.
    pub pad: [u8; 2],
    /// Time of one new connection, in nanoseconds; 0 is no limit.
    pub rate_total: u32,
    /// The same for those of one source.
    pub rate_source: u32,
    /// How far ahead of their pace both may be, in nanoseconds.
    pub rate_burst: u32,
    /// The backends.
    pub slots: [Slot; MAX_BACKENDS],
}

/// Flows of one backend.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Established flows.
    pub live: u32,
    /// Half-open flows.
    pub pending: u32,
}

impl Load {
    /// Live and half-open flows. Two CPUs may take one back an instant before
    /// it was added; what looks negative is none.
    #[inline(always)]
    pub const fn flows(&self) -> u32 {
        positive(self.live).saturating_add(positive(self.pending))
    }
}

#[inline(always)]
const fn positive(count: u32) -> u32 {
    if count > i32::MAX as u32 { 0 } else { count }
}

/// Counts of one cluster. Written by the datapath only.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterLoad {
    /// Established flows of all backends.
    pub live: u32,
    /// Half-open flows of all backends.
    pub pending: u32,
    /// Choices made; rotates ties and roundrobin.
    pub cursor: u32,
    /// Flows that are over and whose SNAT port rests.
    pub resting: u32,
    /// New flows whose client had a usable sticky entry.
    pub sticky_hits: u64,
    /// New flows of a sticky cluster whose client had none.
    pub sticky_misses: u64,
    /// New connections refused at `max_connections`.
    pub refused_limit: u64,
    /// New connections refused for want of a SNAT port.
    pub refused_snat: u64,
    /// New connections refused for want of a ready backend.
    pub refused_no_backend: u64,
    /// Half-open flows pushed out of their ring by newer ones.
    pub pushed_out: u64,
    /// SNAT ports used again before their rest was over.
    pub reused_early: u64,
    /// Half-open flows that moved because their backend refused them.
    pub moved_refused: u64,
    /// Half-open flows that moved because their backend did not answer.
    pub moved_silent: u64,
    /// New connections refused because their source is kept out.
    pub refused_deny: u64,
    /// New connections refused at the pace of all.
    pub refused_rate_total: u64,
    /// New connections refused at the pace of their source.
    pub refused_rate_source: u64,
    /// When the next new connection would come at the pace of all: nanoseconds
    /// of `CLOCK_MONOTONIC`.
    pub next_new_ns: u64,
    /// By backend slot.
    pub slots: [Load; MAX_BACKENDS],
    /// By backend slot: when it last answered a SYN, whoever sent that.
    pub answered: [Ticks; MAX_BACKENDS],
    /// Flows ever established, by backend slot.
    pub connections: [u64; MAX_BACKENDS],
    /// Bytes client to backend of ended flows, by slot.
    pub bytes_in: [u64; MAX_BACKENDS],
    /// Bytes backend to client of ended flows, by slot.
    pub bytes_out: [u64; MAX_BACKENDS],
    /// SYNs that the backend answered with a RST, by slot.
    pub refusals: [u64; MAX_BACKENDS],
    /// Flows that left the backend because it did not answer their SYN.
    pub silences: [u64; MAX_BACKENDS],
    /// Established flows that the backend reset, by slot.
    pub resets: [u64; MAX_BACKENDS],
}

impl ClusterLoad {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        live: 0,
        pending: 0,
        cursor: 0,
        resting: 0,
        sticky_hits: 0,
        sticky_misses: 0,
        refused_limit: 0,
        refused_snat: 0,
        refused_no_backend: 0,
        pushed_out: 0,
        reused_early: 0,
        moved_refused: 0,
        moved_silent: 0,
        refused_deny: 0,
        refused_rate_total: 0,
        refused_rate_source: 0,
        next_new_ns: 0,
        slots: [Load {
            live: 0,
            pending: 0,
        }; MAX_BACKENDS],
        answered: [Ticks(0); MAX_BACKENDS],
        connections: [0; MAX_BACKENDS],
        bytes_in: [0; MAX_BACKENDS],
        bytes_out: [0; MAX_BACKENDS],
        refusals: [0; MAX_BACKENDS],
        silences: [0; MAX_BACKENDS],
        resets: [0; MAX_BACKENDS],
    };
}

/// Flows as one walk counted them, by backend slot.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recount {
    /// By backend slot.
    pub slots: [Load; MAX_BACKENDS],
}

impl Recount {
    /// Nothing counted.
    pub const ZERO: Self = Self {
        slots: [Load {
            live: 0,
            pending: 0,
        }; MAX_BACKENDS],
    };
}

/// A repair of one backend's counts: differences, modulo 2^32.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Correction {
    /// Id of the cluster.
    pub cluster: u16,
    /// Slot of the backend.
    pub backend: u16,
    /// Added to `live`.
    pub live: u32,
    /// Added to `pending`.
    pub pending: u32,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            backends: 0,
            balance: Balance::LeastConn as u8,
            sticky: 0,
            max_connections: 0,
            sticky_expire: 0,
            connect_timeout: 0,
            idle_timeout: 0,
            half_closed_timeout: 0,
            total_weight: 0,
            stride: 1,
            refuse_limit: RefuseAction::Drop as u8,
            refuse_snat: RefuseAction::Reset as u8,
            refuse_no_backend: RefuseAction::Reset as u8,
            unknown: Unknown::Reset as u8,
            redispatch_after: 0,
            resting: 0,
            state: ClusterState::Ready as u8,
            refuse_deny: RefuseAction::Drop as u8,
            pad: [0; 2],
            rate_total: 0,
            rate_source: 0,
            rate_burst: 0,
            slots: [Slot::default(); MAX_BACKENDS],
        }
    }
}

const _: () = assert!(size_of::<Slot>() == 4);
const _: () = assert!(size_of::<Cluster>() == 60 + 4 * MAX_BACKENDS);
const _: () = assert!(size_of::<ClusterLoad>() == 120 + 60 * MAX_BACKENDS);
