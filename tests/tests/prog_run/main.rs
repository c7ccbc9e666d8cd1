//! Frames through the loaded program: verdict, whole output bytes, counters
//! and map entries.

mod access;
mod ends;
mod events;
mod exhausted;
mod expiry;
mod full;
mod handshake;
mod icmp;
mod icmp_own;
mod kill;
mod last_hop;
mod new_flow;
mod other;
mod ownership;
mod pass;
mod redispatch;
mod request;
mod reuse;
mod ring;
mod scene;
mod silence;
mod sticky;
mod truncated;
mod vlan;
mod walk;
