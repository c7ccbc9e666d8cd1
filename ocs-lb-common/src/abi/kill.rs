//! Ending flows from outside: what the controller asks for, and what it needs
//! to tell both sides.

use super::flow::FlowKey;
#[cfg(test)]
use crate::address::V6;
use crate::address::{Address, V4};
use crate::ticks::Ticks;

/// A cluster, backend or client that is not a criterion.
pub const ANY: u16 = u16::MAX;

/// Which flows a walk of `ocs_lb_kill` ends. Written by the controller before
/// the walk.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KillRequest {
    /// Address of the client, network byte order, IPv4 in the first four
    /// bytes; all zero is any.
    pub client: [u8; 16],
    /// Id of the cluster, or [`ANY`].
    pub cluster: u16,
    /// Slot of the backend, or [`ANY`].
    pub backend: u16,
    /// A [`KillReason`].
    pub reason: u8,
    /// 1: keep flows whose backend has sent something since `since`.
    pub guard: u8,
    /// Zero.
    pub pad: u16,
    /// Time of the first failed check; read only with `guard`.
    pub since: Ticks,
    /// Flows that one walk ends at most: the pace is the controller's.
    pub limit: u32,
}

/// Why a flow is killed.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillReason {
    /// Neither side sent for the idle timeout.
    Idle = 1,
    /// Its backend is down.
    BackendDown = 2,
    /// An operator's word.
    Operator = 3,
}

/// What one walk did.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KillReport {
    /// Flows ended.
    pub killed: u32,
    /// Flows that the guard kept.
    pub kept: u32,
    /// 1: the limit was reached; more may be left.
    pub more: u32,
    /// Flows ended whose record found the ring full: their sides are told by
    /// the datapath when they send, not before.
    pub untold: u32,
}

/// A flow that was killed: all that the two resets need.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kill<A> {
    /// Tuple of the client's packets.
    pub client: FlowKey<A>,
    /// The same packets as the backend sees them.
    pub backend: FlowKey<A>,
    /// Sequence number for the reset to the backend: the client's next.
    pub client_seq: u32,
    /// Sequence number for the reset to the client: the backend's next.
    pub backend_seq: u32,
    /// Index of the next hop towards the backend.
    pub backend_hop: u16,
    /// Index of the next hop towards the client.
    pub client_hop: u16,
    /// Id of the cluster.
    pub cluster: u16,
    /// Slot of the backend.
    pub slot: u16,
    /// A [`KillReason`].
    pub reason: u8,
    /// Zero.
    pub pad: [u8; 7],
}

const _: () = assert!(size_of::<KillRequest>() == 32);
const _: () = assert!(size_of::<KillReport>() == 16);
#[cfg(test)]
const _: () = {
    assert!(size_of::<Kill<V4>>() == 56);
    assert!(size_of::<Kill<V6>>() == 104);
};

/// Whether a request means this client.
#[inline(always)]
pub fn is_client<A: Address>(request: &KillRequest, client: &A) -> bool {
    request.client == [0; 16] || client.to_bytes() == request.client
}

impl KillRequest {
    /// The bytes of an IPv4 client.
    pub const fn v4(address: V4) -> [u8; 16] {
        let [a, b, c, d] = address.0;
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    }
}
