//! The ring of half-open flows: bounds them, and keeps what a second try needs.

use super::flow::FlowKey;
#[cfg(test)]
use crate::address::{V4, V6};
use crate::ticks::Ticks;

/// Bytes of TCP options at most (RFC 9293 section 3.1).
pub const OPTIONS: usize = 40;

/// Words of the set of backends a flow has tried.
pub const TRIED: usize = super::MAX_BACKENDS / 64;

/// A half-open flow's place in the ring: who it is, and its SYN.
///
/// The next flow that takes the place pushes this one out, if it is still
/// half-open. Key and generation tell whether it is.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending<A> {
    /// Forward key.
    pub key: FlowKey<A>,
    /// State word at birth, for its generation.
    pub born: u32,
    /// When the SYN that is waited for was sent.
    pub sent: Ticks,
    /// When the client's first SYN came.
    pub birth: Ticks,
    /// Initial sequence number.
    pub isn: u32,
    /// Receive window.
    pub window: u16,
    /// TOS or traffic class.
    pub tos: u8,
    /// Byte 13 of the TCP header: SYN, and the ECN bits where they were set.
    pub flags: u8,
    /// Bytes of options in use.
    pub options_len: u8,
    /// Retransmissions seen since `sent`.
    pub retries: u8,
    /// 1: the SNAT port was another flow's a short while ago: a RST may be about
    /// that one.
    pub early: u8,
    /// 1: the SYN carried data, which is not kept.
    pub has_data: u8,
    /// Moves so far.
    pub moves: u8,
    /// Shift of the window.
    pub scale: u8,
    /// Offset of the timestamp option in the frame that [`crate::redispatch`]
    /// writes; 0 is none.
    pub timestamp_at: u8,
    /// Zero.
    pub pad: [u8; 5],
    /// Set of backend slots that had their try.
    pub tried: [u64; TRIED],
    /// The SYN's options.
    pub options: [u8; OPTIONS],
}

#[cfg(test)]
const _: () = {
    assert!(size_of::<Pending<V4>>() == 16 + 16 + 16 + 32 + 40);
    assert!(size_of::<Pending<V6>>() == 40 + 16 + 16 + 32 + 40);
};
