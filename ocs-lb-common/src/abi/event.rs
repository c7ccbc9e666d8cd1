//! What the datapath tells the controller, and the controller every program.

use super::flow::FlowKey;
#[cfg(test)]
use crate::address::{V4, V6};
use crate::ticks::Ticks;
use crate::track::{Phase, StateWord};

/// What happened.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A packet was dropped because a neighbour's MAC is not known.
    NeighborNeeded = 1,
    /// A flow was established.
    Open = 2,
    /// A flow ended.
    Close = 3,
    /// A half-open flow moved to another backend.
    Redispatch = 4,
    /// A new connection was refused.
    Refused = 5,
    /// A client's sticky entry was written or changed.
    Sticky = 6,
}

impl EventKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::NeighborNeeded,
        Self::Open,
        Self::Close,
        Self::Redispatch,
        Self::Refused,
        Self::Sticky,
    ];

    /// The kind of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::NeighborNeeded),
            2 => Some(Self::Open),
            3 => Some(Self::Close),
            4 => Some(Self::Redispatch),
            5 => Some(Self::Refused),
            6 => Some(Self::Sticky),
            _ => None,
        }
    }

    /// Its bit in [`Settings::events`].
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Why a flow ended, or moved, or was refused.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Both sides sent a FIN, the client first.
    ClientClosed = 1,
    /// Both sides sent a FIN, the server first or at the same time.
    ServerClosed = 2,
    /// The client sent a RST (or gave up before the handshake was done).
    ClientReset = 3,
    /// The server sent a RST.
    ServerReset = 4,
    /// Idle for too long.
    Idle = 5,
    /// Not established within the connect timeout.
    ConnectTimeout = 6,
    /// Pushed out of the ring of half-open flows.
    PushedOut = 7,
    /// A new SYN of the same tuple took its place.
    Replaced = 8,
    /// Its backend went down.
    BackendDown = 9,
    /// An operator's word.
    Operator = 10,
    /// The backend refused the SYN.
    Refused = 11,
    /// The backend did not answer the SYN.
    Silent = 12,
    /// The cluster is at its limit.
    Limit = 13,
    /// No SNAT port is free.
    Snat = 14,
    /// No backend is ready.
    NoBackend = 15,
    /// The network says that the backend cannot be reached.
    Unreachable = 16,
    /// The source is kept out.
    Deny = 17,
    /// Too many new connections to the cluster.
    RateTotal = 18,
    /// Too many new connections of the source.
    RateSource = 19,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 19] = [
        Self::ClientClosed,
        Self::ServerClosed,
        Self::ClientReset,
        Self::ServerReset,
        Self::Idle,
        Self::ConnectTimeout,
        Self::PushedOut,
        Self::Replaced,
        Self::BackendDown,
        Self::Operator,
        Self::Refused,
        Self::Silent,
        Self::Limit,
        Self::Snat,
        Self::NoBackend,
        Self::Unreachable,
        Self::Deny,
        Self::RateTotal,
        Self::RateSource,
    ];

    /// Its name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ServerClosed => "server_closed",
            Self::ClientReset => "client_reset",
            Self::ServerReset => "server_reset",
            Self::Idle => "idle",
            Self::ConnectTimeout => "connect_timeout",
            Self::PushedOut => "pushed_out",
            Self::Replaced => "replaced",
            Self::BackendDown => "backend_down",
            Self::Operator => "operator",
            Self::Refused => "refused",
            Self::Silent => "silent",
            Self::Limit => "limit",
            Self::Snat => "snat",
            Self::NoBackend => "no_backend",
            Self::Unreachable => "unreachable",
            Self::Deny => "deny",
            Self::RateTotal => "rate_total",
            Self::RateSource => "rate_source",
        }
    }

    /// Why a flow ended that a packet took to this state.
    #[inline(always)]
    pub const fn of_end(word: StateWord) -> Self {
        match word.phase() {
            Phase::Closed if word.has(StateWord::SERVER_FIRST) => Self::ServerClosed,
            Phase::Closed => Self::ClientClosed,
            _ if word.has(StateWord::SERVER_RESET) => Self::ServerReset,
            _ => Self::ClientReset,
        }
    }

    /// The reason of a number.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1..=19 => Some(Self::ALL[number as usize - 1]),
            _ => None,
        }
    }
}

/// One event on the ring buffer.
///
/// For [`EventKind::NeighborNeeded`] only `kind`, `ifindex` and the source
/// address of `client` mean something: it is the neighbour's.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Event<A> {
    /// An [`EventKind`].
    pub kind: u8,
    /// A [`Reason`], or 0.
    pub reason: u8,
    /// Id of the cluster.
    pub cluster: u16,
    /// Slot of the backend.
    pub backend: u16,
    /// Slot of the backend before a change.
    pub before: u16,
    /// Interface index.
    pub ifindex: u32,
    /// The datapath's clock.
    pub at: Ticks,
    /// Tuple of the client's packets.
    pub client: FlowKey<A>,
    /// SNAT address.
    pub snat: A,
    /// SNAT port, network byte order, in the low half; zero above.
    pub snat_port: u32,
    /// Ticks from the first SYN to the end (close) or to the ACK (open).
    pub age: u32,
    /// Zero.
    pub pad: u32,
    /// Bytes client to backend.
    pub bytes_in: u64,
    /// Bytes backend to client.
    pub bytes_out: u64,
}

#[cfg(test)]
const _: () = {
    assert!(size_of::<Event<V4>>() == 64);
    assert!(size_of::<Event<V6>>() == 104);
};

/// What the controller tells every program.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Settings {
    /// Resets that one CPU may send in a second.
    pub resets_per_cpu: u32,
    /// Slots of the SNAT slab.
    pub port_maps: u32,
    /// Places in the ring of half-open flows.
    pub half_open: u32,
    /// Kinds of events that are wanted, by [`EventKind::bit`].
    pub events: u32,
    /// 1: answers go to the MAC address that a flow's SYN came from, by the
    /// interface it came in.
    pub auto_last_hop: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at + 1);
            assert_eq!(Reason::from_number(*reason as u8), Some(*reason));
            let same = Reason::ALL.iter().filter(|r| r.label() == reason.label());
            assert_eq!(same.count(), 1);
        }
        for kind in EventKind::ALL {
            assert_eq!(EventKind::from_number(kind as u8), Some(kind));
        }
        assert_eq!(Reason::from_number(0), None);
        assert_eq!(EventKind::from_number(7), None);
    }
}
