//! The pace of one source's new connections.

/// A source of a cluster. Its value is when the next new connection would come
/// at its pace, in nanoseconds of `CLOCK_MONOTONIC` (see [`crate::limit`]).
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SourceKey<A> {
    /// The client's address.
    pub address: A,
    /// Id of the cluster.
    pub cluster: u16,
    /// Zero.
    pub pad: u16,
}
