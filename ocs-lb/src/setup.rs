//! From a model and this host's network to a forwarding datapath.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::datapath::adopt::Found;
use crate::datapath::attach::{self, Attached, attach_all};
use crate::datapath::identity::Entry;
use crate::datapath::load::{Loaded, Maps, TC, XDP, load_pinned, tc, xdp};
use crate::datapath::next_hops::NextHops;
use crate::datapath::pins::Pins;
use crate::datapath::{log, read, sysctl};
use crate::model::align::align;
use crate::model::attach::Kind;
use crate::model::edits::Reach;
use crate::model::ramp::Ramp;
use crate::model::sizes::Sizes;
use crate::model::snat::auto_range;
use crate::model::standing::Standing;
use crate::model::{
    AttachMode, BackendWord, Cluster, ClusterState, Interfaces, LogLevel, Model, Snat, Unknown,
};
use crate::neighbor::{Link, Netlink, Route};
use crate::words::Words;

mod fill;
mod network;
mod ways;

pub use fill::{Facts, edits, fill};
use network::ipv4;
pub use network::{Network, look, routes};
pub use ways::{indexes, links, neighbors};

/// A datapath that forwards. What is pinned goes on forwarding when it is
/// dropped; see [`Running::end`].
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
    /// The way to each backend, by cluster and slot.
    pub routes: Vec<Vec<Option<Route>>>,
    /// Neighbours that the kernel keeps resolved: interface and address.
    pub kept: BTreeSet<(u32, Ipv4Addr)>,
    /// Where it is pinned.
    pub pins: Pins,
}

impl Running {
    /// Stops forwarding and leaves nothing.
    ///
    /// # Errors
    /// A pin that cannot be removed.
    pub fn end(self) -> anyhow::Result<()> {
        if let Some(before) = self.loaded.identity.forwarding_before() {
            sysctl::restore(&before);
        }
        self.pins.remove()?;
        Ok(())
    }
}

/// Loads, fills and attaches; takes on what forwards already. Maps are filled
/// before the first program is attached, so the first packet meets a complete
/// datapath. The model comes back with the ids that the datapath has.
///
/// `unknown`, where given, stands in for the clusters' own: packets of
/// connections from before the first attach.
///
/// # Errors
/// Whatever is missing, with what to do. What forwarded before goes on then,
/// with the new policy where that was written already; else nothing stays.
pub async fn set_up(
    model: Model,
    netlink: &Netlink,
    unknown: Option<Unknown>,
    pins: Pins,
    words: &Words,
) -> anyhow::Result<(Running, Model, Found)> {
    let forwards = !pins.attached()?.is_empty();
    if !forwards {
        // Maps that nobody writes to any more are of no use.
        pins.clear()?;
    }
    let result = start(model, netlink, unknown, &pins, words).await;
    match result {
        Ok((parts, model, found)) => Ok((parts.with(pins), model, found)),
        Err(error) => {
            if !forwards {
                pins.remove()?;
            }
            Err(error)
        }
    }
}

/// [`Running`] without its pins.
struct Parts {
    loaded: Loaded,
    attached: Vec<Attached>,
    next_hops: NextHops,
    reach: Vec<Vec<Reach>>,
    network: Network,
    kept: BTreeSet<(u32, Ipv4Addr)>,
}

impl Parts {
    fn with(self, pins: Pins) -> Running {
        Running {
            macs: self.network.macs(),
            sources: self.network.sources(),
            loaded: self.loaded,
            attached: self.attached,
            next_hops: self.next_hops,
            reach: self.reach,
            routes: self.network.routes,
            kept: self.kept,
            pins,
        }
    }
}

async fn start(
    model: Model,
    netlink: &Netlink,
    unknown: Option<Unknown>,
    pins: &Pins,
    words: &Words,
) -> anyhow::Result<(Parts, Model, Found)> {
    let found = Found::look(pins)?;
    let model = align(&found.ids, None, model, |id, slot| found.is_busy(id, slot))?;
    let network = look(&model, netlink).await?;
    let mut interfaces = interfaces(&model, &network)?;
    if matches!(model.interfaces, Interfaces::Auto) {
        add_attached(&mut interfaces, &network, &pins.attached()?);
    }
    attach::check(pins, &network.links, &interfaces, &[]).await?;
    let sizes = Sizes::of(&model);
    let level = model.log.level;
    let mut loaded = load_pinned(&sizes, level, pins).context("the datapath does not load")?;
    if level == LogLevel::Trace {
        log::forward(&mut loaded.ebpf);
    }
    let mut next_hops = NextHops::of(&loaded.maps)?;
    let reach = reach(&model, &network, &mut loaded.maps, &mut next_hops, &[])?;
    let now = read::uptime();
    let standings = standings(&model, &found, words, now);
    let states = states(&model, &found, words);
    let facts = Facts {
        reach: &reach,
        standings: &standings,
        states: &states,
        unknown,
        now,
    };
    let edits = edits(&model, &network, &reach)?;
    // Whom the next start meets: before any flow has a new id.
    loaded
        .identity
        .set(&identities(&model, &standings, &states))?;
    fill(&model, &mut loaded.maps, &edits, &sizes, facts)?;

    // What forwards already, and what will in a moment.
    let mut attaches: BTreeSet<u32> = pins.attached()?.into_iter().collect();
    attaches.extend(interfaces.iter().map(|(link, _)| link.ifindex));
    links(&network.links, &attaches, &next_hops, &mut loaded.maps)?;
    let kept = neighbors(netlink, &network, &next_hops, &mut loaded.maps).await?;
    let before =
        sysctl::enable().context("net.ipv4.conf.lo.forwarding could not be switched on")?;
    if loaded.identity.forwarding_before().is_none() {
        loaded.identity.set_forwarding_before(&before)?;
    }
    let mut attached = Vec::new();
    attach_all(
        &mut loaded,
        Some(pins),
        &network.links,
        &interfaces,
        &mut attached,
    )
    .await?;
    if matches!(model.interfaces, Interfaces::Listed(_)) {
        leave(&mut loaded, pins, &attached)?;
    }
    let attaches = indexes(&attached);
    links(&network.links, &attaches, &next_hops, &mut loaded.maps)?;
    pin_programs(&mut loaded, pins)?;
    let parts = Parts {
        loaded,
        attached,
        next_hops,
        reach,
        network,
        kept,
    };
    Ok((parts, model, found))
}

/// Adds interfaces that forward already: their VIP may be away for a moment.
fn add_attached(found: &mut Vec<(Link, AttachMode)>, network: &Network, attached: &[u32]) {
    for link in &network.links {
        let known = found.iter().any(|(one, _)| one.ifindex == link.ifindex);
        if !known && attached.contains(&link.ifindex) {
            found.push((link.clone(), AttachMode::Auto));
        }
    }
}

/// Takes the program off interfaces that the configuration no longer names.
fn leave(loaded: &mut Loaded, pins: &Pins, attached: &[Attached]) -> anyhow::Result<()> {
    for ifindex in pins.attached()? {
        if !attached.iter().any(|one| one.ifindex == ifindex) {
            pins.forget_link(ifindex)?;
            attach::forget(loaded, ifindex)?;
            tracing::info!(ifindex, "no longer attached");
        }
    }
    Ok(())
}

/// Pins the programs beside their links, where an operator looks for them.
fn pin_programs(loaded: &mut Loaded, pins: &Pins) -> anyhow::Result<()> {
    for name in [XDP, TC] {
        let path = pins.program(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    xdp(&mut loaded.ebpf)?.pin(pins.program(XDP))?;
    Ok(tc(&mut loaded.ebpf)?.pin(pins.program(TC))?)
}

/// A value for every backend, by cluster and slot.
pub fn per_backend<T>(model: &Model, value: impl Fn(usize, usize) -> T) -> Vec<Vec<T>> {
    let clusters = model.clusters.iter().enumerate();
    clusters
        .map(|(id, cluster)| {
            (0..cluster.backends.len())
                .map(|slot| value(id, slot))
                .collect()
        })
        .collect()
}

/// The operator's word about each cluster: as the datapath has it that
/// another controller left, or where that does not know the cluster (after a
/// boot), as it was kept.
pub fn states(model: &Model, found: &Found, words: &Words) -> Vec<ClusterState> {
    let state = |(id, cluster): (usize, &Cluster)| {
        let entry = found.entries.get(&(id as u16, None));
        match entry.filter(|entry| entry.name == cluster.name) {
            Some(entry) => ClusterState::from_number(entry.state),
            None => words.state(&cluster.name),
        }
    };
    model.clusters.iter().enumerate().map(state).collect()
}

/// What is known of each backend, as the datapath has it that another
/// controller left; else it is up until its first check fails (HAProxy), and
/// what was said of it is what was kept.
pub fn standings(model: &Model, found: &Found, words: &Words, now: Duration) -> Vec<Vec<Standing>> {
    per_backend(model, |id, slot| {
        let cluster = &model.clusters[id];
        let backend = &cluster.backends[slot];
        let own = found.entries.get(&(id as u16, Some(slot as u16)));
        let own =
            own.filter(|own| (&own.name, own.address) == (&backend.name, Some(backend.address)));
        let was = found.entries.get(&(id as u16, None));
        let cluster_served = was.is_some_and(|was| was.name == cluster.name);
        let mut standing = match own {
            Some(own) => Standing {
                healthy: own.healthy || backend.check.is_none(),
                word: BackendWord::from_numbers(own.state, own.weight),
                ramp: Ramp::found(own.since),
            },
            None => Standing {
                healthy: true,
                word: words.backend_word(&cluster.name, &backend.name),
                // One that joins others which have all the clients.
                ramp: if cluster_served {
                    Ramp::FROM_NOTHING
                } else {
                    Ramp::default()
                },
            },
        };
        standing.observe(backend, now);
        standing
    })
}

/// Who has the ids of a model; places of nobody are left out.
pub fn identities(
    model: &Model,
    standings: &[Vec<Standing>],
    states: &[ClusterState],
) -> BTreeMap<(u16, Option<u16>), Entry> {
    let mut entries = BTreeMap::new();
    let clusters = model.clusters.iter().zip(standings).zip(states);
    for (id, ((cluster, standings), state)) in clusters.enumerate() {
        let own = Entry {
            state: state.number(),
            ..Entry::named(&cluster.name)
        };
        entries.insert((id as u16, None), own);
        for (slot, (backend, standing)) in cluster.backends.iter().zip(standings).enumerate() {
            let (state, weight) = standing.word.numbers();
            let entry = Entry {
                name: backend.name.clone(),
                address: Some(backend.address),
                healthy: standing.healthy,
                state,
                weight,
                since: standing.ramp.since,
            };
            entries.insert((id as u16, Some(slot as u16)), entry);
        }
    }
    entries.retain(|_, entry| !entry.name.is_empty());
    entries
}

/// The interfaces to attach to: those of the configuration, or those that
/// carry VIPs, SNAT addresses and routes to backends.
///
/// # Errors
/// A name that no interface has, or none found at all.
pub fn interfaces(model: &Model, network: &Network) -> anyhow::Result<Vec<(Link, AttachMode)>> {
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
    let routes = network.routes.iter().flatten().flatten();
    indexes.extend(routes.map(|route| route.ifindex));
    let found: Vec<_> = network
        .links
        .iter()
        .filter(|link| indexes.contains(&link.ifindex))
        // A VIP may lie there; nothing comes in.
        .filter(|link| !matches!(link.kind, Kind::Loopback | Kind::Dummy))
        .map(|link| (link.clone(), AttachMode::Auto))
        .collect();
    if found.is_empty() {
        bail!(
            "no interface carries a VIP, a SNAT address or a route to a backend; name them under `interfaces`"
        );
    }
    Ok(found)
}

/// SNAT addresses, ports and next hop of every backend; a retired one keeps
/// what it had in `before`.
///
/// # Errors
/// A map's, or what does not fit this host.
pub fn reach(
    model: &Model,
    network: &Network,
    maps: &mut Maps,
    next_hops: &mut NextHops,
    before: &[Vec<Reach>],
) -> anyhow::Result<Vec<Vec<Reach>>> {
    let ephemeral = ephemeral_ports()?;
    next_hops.forget_mtus();
    let mut rows = Vec::new();
    for (id, (cluster, routes)) in model.clusters.iter().zip(&network.routes).enumerate() {
        let mut row = Vec::new();
        for (slot, route) in routes.iter().enumerate() {
            let Some(route) = route else {
                let had = before.get(id).and_then(|row| row.get(slot));
                row.push(had.cloned().unwrap_or_default());
                continue;
            };
            let next_hop = next_hops
                .slot(maps, route.ifindex, route.next_hop, route.mtu)?
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
