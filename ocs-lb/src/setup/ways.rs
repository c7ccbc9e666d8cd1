//! Neighbours that are kept, and how frames leave by each interface.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::Network;
use crate::datapath::attach::Attached;
use crate::datapath::load::Maps;
use crate::datapath::next_hops::{self, NextHops};
use crate::model::ways::{Port, ways};
use crate::neighbor::{Link, Netlink};

/// Has the kernel keep every backend's next hop and every gateway, which it
/// returns, and tells the datapath what is known already.
///
/// # Errors
/// netlink's or a map's.
pub async fn neighbors(
    netlink: &Netlink,
    network: &Network,
    hops: &NextHops,
    maps: &mut Maps,
) -> anyhow::Result<BTreeSet<(u32, Ipv4Addr)>> {
    let macs = network.macs();
    let mut wanted: BTreeSet<(u32, Ipv4Addr)> = netlink.gateways().await?.into_iter().collect();
    wanted.extend(
        network
            .routes
            .iter()
            .flatten()
            .flatten()
            .map(|route| (route.ifindex, route.next_hop)),
    );
    for (ifindex, address) in &wanted {
        if let Err(error) = netlink.keep(*ifindex, *address).await {
            // Its MAC is learned by health checks and on demand all the same.
            tracing::warn!(%address, %error, "neighbour not kept by the kernel");
        }
    }
    for neighbor in netlink.neighbors().await? {
        let source = macs.get(&neighbor.ifindex).copied().unwrap_or_default();
        next_hops::set_neighbor(
            maps,
            hops,
            neighbor.ifindex,
            neighbor.address,
            neighbor.mac,
            source,
        )?;
    }
    Ok(wanted)
}

/// The interfaces that programs are attached to.
pub fn indexes(attached: &[Attached]) -> BTreeSet<u32> {
    attached.iter().map(|one| one.ifindex).collect()
}

/// Tells the datapath how frames leave by each interface, which hangs on where
/// the programs are.
///
/// # Errors
/// A map's.
pub fn links(
    links: &[Link],
    attached: &BTreeSet<u32>,
    hops: &NextHops,
    maps: &mut Maps,
) -> anyhow::Result<()> {
    let port = |link: &Link| Port {
        ifindex: link.ifindex,
        mtu: link.mtu,
        // A parent in another namespace has an index of another table.
        vlan: link
            .vlan
            .zip(link.parent.filter(|_| link.parent_namespace.is_none()))
            .map(|((protocol, id), parent)| (parent, protocol, id)),
        attached: attached.contains(&link.ifindex),
    };
    let ports: Vec<Port> = links
        .iter()
        .filter(|link| link.ethernet)
        .map(port)
        .collect();
    if next_hops::set_links(maps, &ways(&ports))? {
        let changed = hops.refresh(maps)?;
        tracing::debug!(changed, "next hops follow their interfaces");
    }
    Ok(())
}
