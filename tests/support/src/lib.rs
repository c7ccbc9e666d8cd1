//! Namespaces, links, servers and clients for the lab and the end-to-end
//! tests.
//!
//! Everything lives in anonymous network namespaces that only this process
//! holds: when it ends, however it ends, the kernel takes them away.

pub mod balancer;
pub mod client;
pub mod delay;
pub mod flood;
pub mod kinds;
pub mod link;
pub mod mode;
pub mod netns;
pub mod others;
pub mod proc;
pub mod relay;
pub mod server;
pub mod supervise;
pub mod tcp;
pub mod topology;
pub mod vm;

/// The twelve ports of the seed.
pub const PORTS: [u16; 12] = [
    5060, 5061, 135, 443, 444, 5065, 5069, 5071, 5072, 5073, 5074, 8404,
];
