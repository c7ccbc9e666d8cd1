//! What is wrong only when keys are seen together.

use std::collections::HashMap;
use std::net::IpAddr;

use super::cluster::Decoded;
use super::host::MAX_FLOWS;
use super::problem::{Place, Report};
use crate::model::lists::shared;
use crate::model::{Port, Prefix, Tables};

/// Checks within each cluster and between them.
pub(super) fn check(clusters: &[Decoded], tables: Tables, report: &mut Report<'_>) {
    for decoded in clusters {
        within(decoded, report);
    }
    let names = clusters.iter().map(|c| (&c.cluster.name, &c.name));
    unique("cluster name", names.filter(|(n, _)| !n.is_empty()), report);
    served_once(clusters, report);
    one_policy(clusters, report);
    roles(clusters, report);
    capacity(clusters, tables, report);
}

/// The second and later places of one value name the first.
fn unique<'d, T: std::hash::Hash + Eq + std::fmt::Display>(
    what: &str,
    values: impl Iterator<Item = (T, &'d Place)>,
    report: &mut Report<'_>,
) {
    let mut first: HashMap<T, &Place> = HashMap::new();
    for (value, place) in values {
        match first.get(&value) {
            Some(at) => {
                let message = format!("{what} {value} is used already, {}", show(at));
                report.wrong(place, message);
            }
            None => {
                first.insert(value, place);
            }
        }
    }
}

fn show(place: &Place) -> String {
    format!("by {} in line {}", place.path, place.line)
}

fn within(decoded: &Decoded, report: &mut Report<'_>) {
    let cluster = &decoded.cluster;
    let vips = cluster.vips.iter().map(|v| v.address);
    unique("VIP", vips.zip(&decoded.vips), report);

    let mut owner: HashMap<u16, usize> = HashMap::new();
    let mut mapped = None;
    let mut reported = None;
    for (port, entry) in cluster.ports.iter().zip(&decoded.port_entry) {
        let Some(place) = decoded.port_entries.get(*entry) else {
            continue;
        };
        if port.listen != port.target {
            mapped = mapped.or(Some(place));
        }
        let first = *owner.entry(port.listen).or_insert(*entry);
        let at = decoded.port_entries.get(first);
        // Once for each entry, not for each port of a range.
        if let (true, Some(at)) = (first != *entry && reported != Some(*entry), at) {
            reported = Some(*entry);
            let message = format!(
                "port {} is listed already, {}",
                Port::name(port.listen),
                show(at)
            );
            report.wrong(place, message);
        }
    }

    let backends = || decoded.backends.iter();
    let names = backends().map(|b| (&b.backend.name, &b.name));
    unique("backend name", names, report);
    let targets = backends().map(|b| {
        let port = b.backend.port.map_or(String::new(), |p| format!(":{p}"));
        (format!("{}{port}", b.backend.address), &b.address)
    });
    unique("backend address", targets, report);

    for backend in backends() {
        if let (Some(place), Some(entry)) = (&backend.port, mapped) {
            let message = format!(
                "a fixed port contradicts the `target` given {}; allowed: one of the two",
                show(entry)
            );
            report.wrong(place, message);
        }
    }
    let is_all_backup = !decoded.backends.is_empty() && backends().all(|b| b.backend.backup);
    if let (true, Some(first)) = (is_all_backup, decoded.backends.first()) {
        let message = "every backend is a backup; allowed: at least one that is not";
        let place = Place {
            line: first.name.line,
            path: parent(&parent(&first.name.path)),
        };
        report.wrong(&place, message);
    }
}

/// `a.b[0].c` -> `a.b[0]` -> `a.b`.
fn parent(path: &str) -> String {
    let cut = path.rfind(['.', '[']).unwrap_or(0);
    path.get(..cut).unwrap_or_default().to_owned()
}

/// No VIP:port may belong to two clusters for the same prefix. Port arrays per VIP, because
/// clusters may serve ranges of tens of thousands of ports.
fn served_once(clusters: &[Decoded], report: &mut Report<'_>) {
    let mut by_vip: HashMap<IpAddr, Vec<(usize, &Place)>> = HashMap::new();
    let mut order = Vec::new();
    for (i, decoded) in clusters.iter().enumerate() {
        for (vip, place) in decoded.cluster.vips.iter().zip(&decoded.vips) {
            let users = by_vip.entry(vip.address).or_default();
            if users.is_empty() {
                order.push(vip.address);
            }
            if users.last().is_none_or(|(last, _)| *last != i) {
                users.push((i, place));
            }
        }
    }
    for vip in order {
        let users = by_vip.get(&vip).map(Vec::as_slice).unwrap_or_default();
        if users.len() > 1 {
            served_once_at(vip, users, clusters, report);
        }
    }
}

fn served_once_at(
    vip: IpAddr,
    users: &[(usize, &Place)],
    clusters: &[Decoded],
    report: &mut Report<'_>,
) {
    let mut owners: Vec<Vec<(Claim<'_>, usize)>> = vec![Vec::new(); 1 << 16];
    // Between two clusters, what both serve.
    let mut both: HashMap<(usize, usize), Option<Prefix>> = HashMap::new();
    let mut both = |i: usize, j: usize| {
        let from = |at: usize| clusters.get(at).map_or(&[][..], |c| &c.cluster.access.from);
        *both
            .entry((i, j))
            .or_insert_with(|| shared(from(i), from(j)))
    };
    for (i, vip_place) in users {
        let Some(decoded) = clusters.get(*i) else {
            continue;
        };
        let mut reported = None;
        for (port, entry) in decoded.cluster.ports.iter().zip(&decoded.port_entry) {
            let place = decoded.port_entries.get(*entry).unwrap_or(vip_place);
            let Some(owners) = owners.get_mut(usize::from(port.listen)) else {
                continue;
            };
            let claim = [place, *vip_place, &decoded.name];
            let others = owners.iter().filter(|(_, j)| j != i);
            let mut served = others.filter_map(|(first, j)| Some((*first, both(*j, *i)?)));
            // Once for each entry, not for each port of a range.
            if let (Some((first, prefix)), true) = (served.next(), reported != Some(*entry)) {
                reported = Some(*entry);
                let (here, there) = tell_apart(claim, first);
                let whom = match prefix {
                    Prefix::EVERYONE => String::new(),
                    prefix => format!(" for {prefix}"),
                };
                let message = format!(
                    "{vip}:{} is served already{whom}, {}",
                    Port::name(port.listen),
                    show(there)
                );
                report.wrong(here, message);
            }
            owners.push((claim, *i));
        }
    }
}

/// Where a cluster claims a VIP:port: its port, its VIP, its name.
type Claim<'d> = [&'d Place; 3];

/// The most exact places that differ: ports and VIPs may be inherited by both.
fn tell_apart<'d>(here: Claim<'d>, there: Claim<'d>) -> (&'d Place, &'d Place) {
    let pairs = || here.into_iter().zip(there);
    pairs().find(|(a, b)| a != b).unwrap_or((here[2], there[2]))
}

/// What a packet to a VIP meets that no port is looked up for is one thing,
/// however many clusters serve the VIP.
fn one_policy(clusters: &[Decoded], report: &mut Report<'_>) {
    let mut first: HashMap<IpAddr, (&Decoded, &Place)> = HashMap::new();
    for decoded in clusters {
        for (vip, place) in decoded.cluster.vips.iter().zip(&decoded.vips) {
            let (other, at) = *first.entry(vip.address).or_insert((decoded, place));
            let differ = [
                (
                    "unserved",
                    decoded.cluster.unserved != other.cluster.unserved,
                ),
                (
                    "fragments",
                    decoded.cluster.fragments != other.cluster.fragments,
                ),
            ];
            for (key, _) in differ.iter().filter(|(_, differs)| *differs) {
                let message = format!(
                    "VIP {} is used already, {}, with another `{key}`; \
                     allowed: one for all clusters of a VIP",
                    vip.address,
                    show(at)
                );
                report.wrong(place, message);
            }
        }
    }
}

/// An address has one role: VIP, backend or (VIPs apart) SNAT.
fn roles(clusters: &[Decoded], report: &mut Report<'_>) {
    let mut backends: HashMap<IpAddr, &Place> = HashMap::new();
    for backend in clusters.iter().flat_map(|c| &c.backends) {
        backends
            .entry(backend.backend.address)
            .or_insert(&backend.address);
    }
    for decoded in clusters {
        let vips = decoded.cluster.vips.iter().map(|v| v.address);
        for (address, place) in vips.zip(&decoded.vips) {
            if let Some(at) = backends.get(&address) {
                let message = format!("VIP {address} is a backend's address, {}", show(at));
                report.wrong(place, message);
            }
        }
        for (address, place) in &decoded.snat {
            if let Some(at) = backends.get(address) {
                let message = format!("SNAT address {address} is a backend's, {}", show(at));
                report.wrong(place, message);
            }
        }
    }
}

fn capacity(clusters: &[Decoded], tables: Tables, report: &mut Report<'_>) {
    let sum: u64 = clusters
        .iter()
        .map(|c| u64::from(c.cluster.max_connections))
        .sum();
    if let (None, Some(last), true) = (tables.flows, clusters.last(), sum > u64::from(MAX_FLOWS)) {
        let message = format!(
            "the clusters' max_connections add up to {sum} flows; \
             allowed: at most {MAX_FLOWS}, or `tables.flows`"
        );
        report.wrong(&last.name, message);
    }
}
