//! Facts about the network around: links, routes, neighbours, from netlink.
//!
//! Reads and asks; writes no map. What it finds goes to the task that owns
//! the maps, as messages.

mod features;
mod link;
mod netlink;
pub mod offloads;
mod peer;
mod raw;
mod watch;

pub use features::{XdpFeatures, xdp_features};
pub use link::Link;
pub use netlink::{Netlink, NetlinkError, Route};
pub use offloads::{Offloads, offloads};
pub use peer::{Peer, driver, peer};
pub use watch::{Change, Neighbor, watch};
