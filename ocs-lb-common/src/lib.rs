//! The pure core of ocs-lb: everything that decides about a packet or a flow.
//!
//! Nothing here touches a map, a clock or a packet context. What a decision
//! needs (the time, a cursor, the result of a lookup) is an argument, so the
//! same code runs in the kernel, under unit and property tests and under
//! fuzzers. One module is one step of a packet's way; see
//! `docs/packet-walk.md`.

#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod access;
pub mod address;
pub mod checksum;
pub mod classify;
pub mod icmp;
pub mod limit;
pub mod parse;
pub mod rate;
pub mod redispatch;
pub mod reset;
pub mod rest;
pub mod resting;
pub mod select;
pub mod snat;
pub mod sweep;
pub mod ticks;
pub mod track;
pub mod translate;
pub mod verdict;
pub mod wire;
