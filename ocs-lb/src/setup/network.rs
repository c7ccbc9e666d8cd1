//! What a model needs to know of the host's network.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};

use crate::model::Model;
use crate::neighbor::{Link, Netlink, Route};

/// What netlink said, read once.
pub struct Network {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<(u32, Ipv4Addr)>,
    /// By cluster and slot; none for a retired backend.
    pub(super) routes: Vec<Vec<Option<Route>>>,
}

impl Network {
    /// Every interface.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// MAC addresses by interface index.
    pub fn macs(&self) -> BTreeMap<u32, [u8; 6]> {
        let mac = |link: &Link| (link.ifindex, link.mac);
        self.links.iter().map(mac).collect()
    }

    /// The way to each backend.
    pub fn into_routes(self) -> Vec<Vec<Option<Route>>> {
        self.routes
    }

    /// The host's address towards each backend.
    pub fn sources(&self) -> Vec<Vec<Ipv4Addr>> {
        let source = |route: &Option<Route>| route.map_or(Ipv4Addr::UNSPECIFIED, |r| r.source);
        let row = |routes: &Vec<Option<Route>>| routes.iter().map(source).collect();
        self.routes.iter().map(row).collect()
    }
}

/// Asks the kernel for all that a model needs to know.
///
/// # Errors
/// Names the backend that has no route.
pub async fn look(model: &Model, netlink: &Netlink) -> anyhow::Result<Network> {
    Ok(Network {
        links: netlink.links().await?,
        addresses: netlink.addresses().await?,
        routes: routes(model, netlink).await?,
    })
}

/// The way to each backend, by cluster and slot; none for a retired one.
///
/// # Errors
/// Names the backend that has no route.
pub async fn routes(model: &Model, netlink: &Netlink) -> anyhow::Result<Vec<Vec<Option<Route>>>> {
    let mut routes = Vec::new();
    for cluster in &model.clusters {
        let mut row = Vec::new();
        for backend in &cluster.backends {
            if backend.retired {
                row.push(None);
                continue;
            }
            let route = netlink
                .route_to(ipv4(backend.address)?)
                .await
                .with_context(|| format!("backend {}/{}", cluster.name, backend.name))?;
            row.push(Some(route));
        }
        routes.push(row);
    }
    Ok(routes)
}

pub(super) fn ipv4(address: IpAddr) -> anyhow::Result<Ipv4Addr> {
    match address {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => bail!("{address} is IPv6, which this version does not serve"),
    }
}
