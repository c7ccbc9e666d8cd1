//! Facts about the network around: links, routes, neighbours, from netlink.
//!
//! Reads and asks; writes no map. What it finds goes to the task that owns
//! the maps, as messages.

mod features;
mod netlink;
pub mod offloads;
mod raw;
mod watch;

pub use features::{XdpFeatures, xdp_features};
pub use netlink::{Link, Netlink, NetlinkError, Route};
pub use offloads::{Offloads, offloads};
pub use watch::{Change, Neighbor, watch};
