//! From a model and this host's network to a forwarding datapath.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};
use ocs_lb_common::abi::{EventKind, Settings};

use crate::datapath::apply::{self, NextHops};
use crate::datapath::attach::{Attached, attach_all};
use crate::datapath::load::{Loaded, load};
use crate::datapath::log;
use crate::datapath::sysctl::LoopbackForwarding;
use crate::model::edits::{Reach, plan};
use crate::model::sizes::{Sizes, ring};
use crate::model::snat::{auto_range, range_len};
use crate::model::{
    AttachMode, Cluster, ClusterState, Interfaces, LogLevel, Model, Snat, Unknown, policy,
};
use crate::neighbor::{Link, Netlink, Route};

/// A datapath that forwards; dropping it detaches.
pub struct Running {
    /// Programs and maps.
    pub loaded: Loaded,
    /// Where they are attached.
    pub attached: Vec<Attached>,
    /// Slots of the controller's next hops.
    pub next_hops: NextHops,
    /// MAC addresses of our interfaces, by index.
    pub macs: BTreeMap<u32, [u8; 6]>,
    /// What the network says of each backend, by cluster and slot.
    pub reach: Vec<Vec<Reach>>,
    /// The host's address towards each backend, by cluster and slot.
    pub sources: Vec<Vec<Ipv4Addr>>,
    _sysctl: LoopbackForwarding,
}

/// What netlink said, read once.
struct Network {
    links: Vec<Link>,
    addresses: Vec<(u32, Ipv4Addr)>,
    routes: Vec<Vec<Route>>,
}

/// Loads, fills and attaches. Maps are filled before the first program is
/// attached, so the first packet meets a complete datapath.
///
/// `unknown`, where given, stands in for the clusters' own: packets of
/// connections from before the first attach.
///
/// # Errors
/// Whatever is missing, with what to do; nothing stays attached then.
pub async fn set_up(
    model: &Model,
    netlink: &Netlink,
    unknown: Option<Unknown>,
) -> anyhow::Result<Running> {
    let network = look(model, netlink).await?;
    let interfaces = interfaces(model, &network)?;
    let sizes = Sizes::of(model);
    let level = model.log.level;
    let mut loaded = load(&sizes, level).context("the datapath does not load")?;
    if level == LogLevel::Trace {
        log::forward(&mut loaded.ebpf);
    }
    let mut next_hops = NextHops::default();
    let reach = reach(model, &network, &mut loaded, &mut next_hops)?;
    fill(model, &network, &mut loaded, &reach, &sizes, unknown)?;

    let macs: BTreeMap<u32, [u8; 6]> = network
        .links
        .iter()
        .map(|link| (link.ifindex, link.mac))
        .collect();
    neighbors(netlink, &network, &mut loaded, &macs).await?;

    let sysctl = LoopbackForwarding::enable()
        .context("net.ipv4.conf.lo.forwarding could not be switched on")?;
    let attached = attach_all(&mut loaded, &interfaces)?;
    for one in &attached {
        tracing::info!(interface = one.name, mode = one.mode, "attached");
    }
    let sources = network
        .routes
        .iter()
        .map(|routes| routes.iter().map(|route| route.source).collect())
        .collect();
    Ok(Running {
        loaded,
        attached,
        next_hops,
        macs,
        reach,
        sources,
        _sysctl: sysctl,
    })
}

async fn look(model: &Model, netlink: &Netlink) -> anyhow::Result<Network> {
    let mut routes = Vec::new();
    for cluster in &model.clusters {
        let mut row = Vec::new();
        for backend in &cluster.backends {
            let route = netlink
                .route_to(ipv4(backend.address)?)
                .await
                .with_context(|| format!("backend {}/{}", cluster.name, backend.name))?;
            row.push(route);
        }
        routes.push(row);
    }
    Ok(Network {
        links: netlink.links().await?,
        addresses: netlink.addresses().await?,
        routes,
    })
}

fn ipv4(address: IpAddr) -> anyhow::Result<Ipv4Addr> {
    match address {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(_) => bail!("{address} is IPv6, which this version does not serve"),
    }
}

/// The interfaces to attach to: those of the configuration, or those that
/// carry VIPs, SNAT addresses and routes to backends.
fn interfaces(model: &Model, network: &Network) -> anyhow::Result<Vec<(Link, AttachMode)>> {
    let by_name = |name: &str| network.links.iter().find(|link| link.name == name);
    if let Interfaces::Listed(listed) = &model.interfaces {
        return listed
            .iter()
            .map(|interface| {
                let link = by_name(&interface.name).with_context(|| {
                    format!("interfaces: there is no interface {}", interface.name)
                })?;
                Ok((link.clone(), interface.mode))
            })
            .collect();
    }
    let ours: BTreeSet<IpAddr> = model
        .clusters
        .iter()
        .flat_map(|cluster| {
            let snat = match &cluster.snat {
                Snat::Auto => &[][..],
                Snat::Pool { addresses, .. } => addresses,
            };
            let vips = cluster.vips.iter().map(|vip| vip.address);
            vips.chain(snat.iter().copied())
        })
        .collect();
    let mut indexes: BTreeSet<u32> = network
        .addresses
        .iter()
        .filter(|(_, address)| ours.contains(&IpAddr::V4(*address)))
        .map(|(ifindex, _)| *ifindex)
        .collect();
    indexes.extend(network.routes.iter().flatten().map(|route| route.ifindex));
    let found: Vec<_> = network
        .links
        .iter()
        .filter(|link| indexes.contains(&link.ifindex) && link.name != "lo")
        .map(|link| (link.clone(), AttachMode::Auto))
        .collect();
    if found.is_empty() {
        bail!(
            "no interface carries a VIP, a SNAT address or a route to a backend; name them under `interfaces`"
        );
    }
    Ok(found)
}

/// SNAT addresses, ports and next hop of every backend.
fn reach(
    model: &Model,
    network: &Network,
    loaded: &mut Loaded,
    next_hops: &mut NextHops,
) -> anyhow::Result<Vec<Vec<Reach>>> {
    let ephemeral = ephemeral_ports()?;
    let mut rows = Vec::new();
    for (cluster, routes) in model.clusters.iter().zip(&network.routes) {
        let mut row = Vec::new();
        for route in routes {
            let next_hop = next_hops
                .slot(&mut loaded.maps, route.ifindex, route.next_hop)?
                .context("more next hops than the datapath has slots for")?;
            let (snat, ports) = snat(cluster, route, ephemeral)?;
            row.push(Reach {
                snat,
                ports,
                next_hop,
            });
        }
        rows.push(row);
    }
    Ok(rows)
}

fn snat(
    cluster: &Cluster,
    route: &Route,
    ephemeral: (u16, u16),
) -> anyhow::Result<(Vec<Ipv4Addr>, (u16, u16))> {
    match &cluster.snat {
        Snat::Auto => {
            let ports = auto_range(ephemeral).context(
                "snat: auto finds no port outside ip_local_port_range; narrow that, or name a pool",
            )?;
            Ok((vec![route.source], ports))
        }
        Snat::Pool { addresses, ports } => {
            let addresses = addresses
                .iter()
                .map(|address| ipv4(*address))
                .collect::<anyhow::Result<_>>()?;
            Ok((addresses, *ports))
        }
    }
}

/// The ports that the host's own connections use (`ip_local_port_range`).
///
/// # Errors
/// Where the sysctl cannot be read.
pub fn ephemeral_ports() -> anyhow::Result<(u16, u16)> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(path).with_context(|| path.to_owned())?;
    let mut words = text.split_whitespace().map(str::parse::<u16>);
    match (words.next(), words.next()) {
        (Some(Ok(low)), Some(Ok(high))) => Ok((low, high)),
        _ => bail!("{path} has no two ports: {text:?}"),
    }
}

/// Kinds of events that the datapath tells: all but changes of sticky entries,
/// which `show sticky` has and which nobody would read one by one.
fn wanted_events() -> u32 {
    EventKind::ALL
        .iter()
        .filter(|kind| **kind != EventKind::Sticky)
        .fold(0, |mask, kind| mask | kind.bit())
}

/// SNAT ports that the primaries of each cluster have towards one port, without
/// what is retired.
fn ports<'a>(model: &'a Model, reach: &'a [Vec<Reach>]) -> impl Iterator<Item = u64> + 'a {
    let clusters = model.clusters.iter().zip(reach);
    let clusters = clusters.filter(|(cluster, _)| !cluster.retired);
    clusters.map(|(cluster, reach)| {
        let backends = cluster.backends.iter().zip(reach);
        backends
            .filter(|(backend, _)| !backend.backup && !backend.retired)
            .map(|(_, reach)| reach.snat.len() as u64 * u64::from(range_len(reach.ports)))
            .sum()
    })
}

fn fill(
    model: &Model,
    network: &Network,
    loaded: &mut Loaded,
    reach: &[Vec<Reach>],
    sizes: &Sizes,
    unknown: Option<Unknown>,
) -> anyhow::Result<()> {
    let host: Vec<Ipv4Addr> = network.addresses.iter().map(|(_, ip)| *ip).collect();
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?.max(1) as u32;
    apply::set_settings(
        &mut loaded.maps,
        Settings {
            resets_per_cpu: (model.unknown_resets / cpus).max(1),
            port_maps: sizes.port_maps,
            half_open: ring(sizes.half_open, ports(model, reach)),
            events: wanted_events(),
        },
    )?;
    for (id, cluster) in model.clusters.iter().enumerate() {
        // A backend is up until its first check fails (HAProxy).
        let healthy = vec![true; cluster.backends.len()];
        let host = policy::Host::of(model, id, unknown, ClusterState::default());
        let policy = policy::cluster(cluster, &healthy, host);
        apply::set_cluster(&mut loaded.maps, id as u16, &policy)?;
    }
    for edit in plan(model, reach, &host)? {
        apply::apply(&mut loaded.maps, &edit)?;
    }
    Ok(())
}

/// Has the kernel keep every backend's next hop and every gateway, and tells
/// the datapath what is known already.
async fn neighbors(
    netlink: &Netlink,
    network: &Network,
    loaded: &mut Loaded,
    macs: &BTreeMap<u32, [u8; 6]>,
) -> anyhow::Result<()> {
    let mut wanted: BTreeSet<(u32, Ipv4Addr)> = netlink.gateways().await?.into_iter().collect();
    wanted.extend(
        network
            .routes
            .iter()
            .flatten()
            .map(|route| (route.ifindex, route.next_hop)),
    );
    for (ifindex, address) in wanted {
        if let Err(error) = netlink.keep(ifindex, address).await {
            // Its MAC is learned by health checks and on demand all the same.
            tracing::warn!(%address, %error, "neighbour not kept by the kernel");
        }
    }
    for neighbor in netlink.neighbors().await? {
        let source = macs.get(&neighbor.ifindex).copied().unwrap_or_default();
        apply::set_neighbor(
            &mut loaded.maps,
            neighbor.ifindex,
            neighbor.address,
            neighbor.mac,
            source,
        )?;
    }
    Ok(())
}
