//! Questions to the kernel over rtnetlink, and requests for neighbours.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkXdp, XdpAttached,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use rtnetlink::{Handle, NeighbourAddRequest, RouteMessageBuilder};

use super::watch::{Neighbor, neighbor};

/// Why the kernel did not answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel refused.
    #[error("netlink, {what}: {source}")]
    Request {
        /// What was asked.
        what: String,
        /// Its answer.
        source: rtnetlink::Error,
    },
    /// The kernel answered without what was asked for.
    #[error("there is no route to {0}")]
    NoRoute(IpAddr),
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub ifindex: u32,
    /// Kernel name.
    pub name: String,
    /// MAC address; zero where the link has none.
    pub mac: [u8; 6],
    /// Longest packet without the Ethernet header, in bytes.
    pub mtu: u32,
    /// Whether it is one end of a veth pair.
    pub veth: bool,
    /// Whether it is switched on.
    pub up: bool,
    /// How an XDP program is attached, where one is: `native` or `generic`.
    pub xdp: Option<&'static str>,
}

/// The kernel's way to a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Interface to send on.
    pub ifindex: u32,
    /// The neighbour to send to: a gateway, or the destination itself.
    pub next_hop: Ipv4Addr,
    /// Our address towards it.
    pub source: Ipv4Addr,
}

/// A connection to rtnetlink.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// Opens a socket in this thread's network namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Socket`].
    pub fn connect() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Every interface.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let links: Vec<_> = self
            .handle
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|source| request("links", source))?;
        Ok(links
            .into_iter()
            .map(|message| {
                let mut link = Link {
                    ifindex: message.header.index,
                    name: String::new(),
                    mac: [0; 6],
                    mtu: 0,
                    veth: false,
                    up: message.header.flags.contains(LinkFlags::Up),
                    xdp: None,
                };
                for attribute in message.attributes {
                    match attribute {
                        LinkAttribute::IfName(name) => link.name = name,
                        LinkAttribute::Address(bytes) => {
                            link.mac = bytes.try_into().unwrap_or_default();
                        }
                        LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                        LinkAttribute::LinkInfo(info) => {
                            link.veth = info.contains(&LinkInfo::Kind(InfoKind::Veth));
                        }
                        LinkAttribute::Xdp(parts) => link.xdp = xdp(&parts),
                        _ => {}
                    }
                }
                link
            })
            .collect())
    }

    /// Every IPv4 address of this host, with its interface.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr)>, NetlinkError> {
        let messages: Vec<_> = self
            .handle
            .address()
            .get()
            .execute()
            .try_collect()
            .await
            .map_err(|source| request("addresses", source))?;
        Ok(messages
            .into_iter()
            .filter_map(|message| {
                let (mut local, mut address) = (None, None);
                for attribute in message.attributes {
                    match attribute {
                        AddressAttribute::Local(IpAddr::V4(ip)) => local = Some(ip),
                        AddressAttribute::Address(IpAddr::V4(ip)) => address = Some(ip),
                        _ => {}
                    }
                }
                // On a point-to-point link `Address` is the peer's.
                Some((message.header.index, local.or(address)?))
            })
            .collect())
    }

    /// The way to a destination, as `ip route get` tells it.
    ///
    /// # Errors
    /// [`NetlinkError::NoRoute`] where there is none.
    pub async fn route_to(&self, destination: Ipv4Addr) -> Result<Route, NetlinkError> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(destination, 32)
            .build();
        let answer = self
            .handle
            .route()
            .get(message)
            .execute()
            .try_next()
            .await
            .map_err(|source| request(&format!("route to {destination}"), source))?
            .ok_or(NetlinkError::NoRoute(destination.into()))?;
        route(&answer, destination).ok_or(NetlinkError::NoRoute(destination.into()))
    }

    /// Gateways of all IPv4 routes, with their interface.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn gateways(&self) -> Result<Vec<(u32, Ipv4Addr)>, NetlinkError> {
        let message = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(message)
            .execute()
            .try_collect()
            .await
            .map_err(|source| request("routes", source))?;
        let mut gateways: Vec<_> = routes
            .iter()
            .filter_map(|message| {
                let hop = Hop::of(message);
                Some((hop.ifindex?, hop.gateway?))
            })
            .collect();
        gateways.sort_unstable();
        gateways.dedup();
        Ok(gateways)
    }

    /// Every IPv4 neighbour whose MAC address is known.
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn neighbors(&self) -> Result<Vec<Neighbor>, NetlinkError> {
        let messages: Vec<NeighbourMessage> = self
            .handle
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Inet)
            .execute()
            .try_collect()
            .await
            .map_err(|source| request("neighbours", source))?;
        Ok(messages.iter().filter_map(neighbor).collect())
    }

    /// Has the kernel resolve a neighbour and keep its entry fresh from now on
    /// (`NTF_EXT_MANAGED`, Linux 5.16).
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn keep(&self, ifindex: u32, address: Ipv4Addr) -> Result<(), NetlinkError> {
        let mut add = self.neighbor_request(ifindex, address);
        add.message_mut()
            .attributes
            .push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
        add.execute()
            .await
            .map_err(|source| request(&format!("neighbour {address}"), source))
    }

    /// Has the kernel resolve a neighbour now, once (`NTF_USE`).
    ///
    /// # Errors
    /// [`NetlinkError::Request`].
    pub async fn probe(&self, ifindex: u32, address: Ipv4Addr) -> Result<(), NetlinkError> {
        self.neighbor_request(ifindex, address)
            .flags(NeighbourFlags::Use)
            .execute()
            .await
            .map_err(|source| request(&format!("neighbour {address}"), source))
    }

    fn neighbor_request(&self, ifindex: u32, address: Ipv4Addr) -> NeighbourAddRequest {
        self.handle
            .neighbours()
            .add(ifindex, address.into())
            .state(NeighbourState::None)
            .replace()
    }
}

/// The mode among what the kernel says of a link's XDP.
fn xdp(parts: &[LinkXdp]) -> Option<&'static str> {
    parts.iter().find_map(|part| match part {
        LinkXdp::Attached(XdpAttached::SocketBuffer) => Some("generic"),
        LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Multiple) => Some("native"),
        _ => None,
    })
}

fn request(what: &str, source: rtnetlink::Error) -> NetlinkError {
    NetlinkError::Request {
        what: what.to_owned(),
        source,
    }
}

/// What a route says of its next hop.
#[derive(Default)]
struct Hop {
    ifindex: Option<u32>,
    gateway: Option<Ipv4Addr>,
    source: Option<Ipv4Addr>,
}

impl Hop {
    fn of(message: &RouteMessage) -> Self {
        let mut hop = Self::default();
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Oif(ifindex) => hop.ifindex = Some(*ifindex),
                RouteAttribute::Gateway(RouteAddress::Inet(ip)) => hop.gateway = Some(*ip),
                RouteAttribute::PrefSource(RouteAddress::Inet(ip)) => hop.source = Some(*ip),
                _ => {}
            }
        }
        hop
    }
}

fn route(message: &RouteMessage, destination: Ipv4Addr) -> Option<Route> {
    let hop = Hop::of(message);
    Some(Route {
        ifindex: hop.ifindex?,
        next_hop: hop.gateway.unwrap_or(destination),
        source: hop.source?,
    })
}
