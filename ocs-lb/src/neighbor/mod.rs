//! Facts about the network around: links, routes, neighbours, from netlink.
//!
//! Reads and asks; writes no map. What it finds goes to the task that owns
//! the maps, as messages.

mod netlink;
pub mod offloads;
mod watch;

pub use netlink::{Link, Netlink, NetlinkError, Route};
pub use offloads::{Offloads, offloads};
pub use watch::{Change, Neighbor, watch};
