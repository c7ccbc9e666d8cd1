//! Changes of neighbours, interfaces and addresses, as they happen.

use std::net::Ipv4Addr;

use futures_util::StreamExt as _;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::sync::mpsc;

use super::NetlinkError;

/// A neighbour whose MAC address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbor {
    /// Interface index.
    pub ifindex: u32,
    /// Its IP address.
    pub address: Ipv4Addr,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// What the kernel told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// A neighbour became known, or has another MAC address.
    Neighbor(Neighbor),
    /// The kernel no longer has an entry for a neighbour: its interface and its
    /// address.
    Gone(u32, Ipv4Addr),
    /// An interface or an address came, went or changed.
    Host,
    /// A route came, went or changed.
    Routes,
}

/// Sends every neighbour that becomes known or changes to `facts`, and that the
/// host changed, until the receiver is gone.
///
/// An entry that the kernel fails to confirm is no news: the last MAC known is a
/// better guess than none, and the datapath asks again where it matters.
///
/// # Errors
/// [`NetlinkError::Socket`].
pub fn watch(facts: mpsc::Sender<Change>) -> Result<(), NetlinkError> {
    let groups = [
        MulticastGroup::Neigh,
        MulticastGroup::Link,
        MulticastGroup::Ipv4Ifaddr,
        MulticastGroup::Ipv4Route,
    ];
    let (connection, _handle, mut messages) = new_multicast_connection(&groups)?;
    tokio::spawn(connection);
    tokio::spawn(async move {
        // The handle keeps the connection alive.
        let _handle = _handle;
        while let Some((message, _)) = messages.next().await {
            let NetlinkPayload::InnerMessage(message) = message.payload else {
                continue;
            };
            let change = match message {
                RouteNetlinkMessage::NewNeighbour(message) => {
                    neighbor(&message).map(Change::Neighbor)
                }
                RouteNetlinkMessage::DelNeighbour(message) => gone(&message),
                RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_) => {
                    Some(Change::Routes)
                }
                RouteNetlinkMessage::NewLink(_)
                | RouteNetlinkMessage::DelLink(_)
                | RouteNetlinkMessage::NewAddress(_)
                | RouteNetlinkMessage::DelAddress(_) => Some(Change::Host),
                _ => None,
            };
            if let Some(change) = change
                && facts.send(change).await.is_err()
            {
                return;
            }
        }
    });
    Ok(())
}

/// A neighbour whose entry was deleted; nothing where it did not answer any more.
fn gone(message: &NeighbourMessage) -> Option<Change> {
    if message.header.state == NeighbourState::Failed {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                Some(Change::Gone(message.header.ifindex, *ip))
            }
            _ => None,
        })
}

/// The neighbour of a message, if it is IPv4 with an Ethernet address.
pub(super) fn neighbor(message: &NeighbourMessage) -> Option<Neighbor> {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(*ip),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
            }
            _ => {}
        }
    }
    let mac = mac.filter(|mac| *mac != [0; 6])?;
    Some(Neighbor {
        ifindex: message.header.ifindex,
        address: address?,
        mac,
    })
}
