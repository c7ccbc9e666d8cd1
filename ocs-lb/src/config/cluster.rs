//! One cluster, after `defaults` were laid under it.

use super::access::Fields;
use super::address::{ports, vip};
use super::backend::{self, backends};
use super::policy::{
    REDISPATCH_AFTER, STICKY, SnatPlaces, on_backend_down, on_backend_removed, persist,
    redispatch_after, refuse, slow_start, snat, sticky, timeouts,
};
use super::problem::{Place, Report};
use super::sources::{access, new_connections};
use super::tree::Node;
use super::value::{name, number, word};
use super::{check, gate};
use crate::model::{
    Balance, Cluster, Fragments, Persist, Port, Prefix, RemovedAction, Snat, Unknown, Unserved,
};

const OWN_KEYS: [&str; 23] = [
    "name",
    "vips",
    "ports",
    "from",
    "allow",
    "deny",
    "new_connections",
    "balance",
    "sticky",
    "snat",
    "max_connections",
    "refuse",
    "unserved",
    "unknown",
    "fragments",
    "timeouts",
    "redispatch_after",
    "persist",
    "slow_start",
    "on_backend_down",
    "on_backend_removed",
    "check",
    "backends",
];
/// Most live flows of a cluster.
pub(super) const MAX_CONNECTIONS: u32 = 4_000_000;

/// A cluster with the places that checks across keys point to.
pub(super) struct Decoded {
    /// The cluster; `ports` still in the order of the file.
    pub cluster: Cluster,
    /// Where its name stands.
    pub name: Place,
    /// Where each VIP stands.
    pub vips: Vec<Place>,
    /// Where each port stands: an index into `port_entries`, parallel to `cluster.ports`.
    pub port_entry: Vec<usize>,
    /// Entries of `ports`.
    pub port_entries: Vec<Place>,
    /// Backends, parallel to `cluster.backends`.
    pub backends: Vec<backend::Decoded>,
    /// Addresses of the SNAT pool.
    pub snat: SnatPlaces,
}

/// Decodes a cluster. `node` is either an entry of `clusters` with everything
/// it inherits, or (`is_real` false) `defaults` itself, of which nothing is required.
pub(super) fn cluster(node: &Node, is_real: bool, report: &mut Report<'_>) -> Option<Decoded> {
    let known: Vec<&str> = OWN_KEYS.iter().chain(&gate::KEYS).copied().collect();
    let fields = node.fields(&known, report)?;
    gate::cluster(fields, report);

    let cluster_name = if is_real {
        fields.required("name", "a name", report, name)
    } else {
        fields.value("name", report, name)
    };
    let vip_items = items(fields, "vips", "addresses", is_real, report);
    let port_items = items(fields, "ports", "ports", is_real, report);
    let backend_items = items(fields, "backends", "backends", is_real, report);

    let (vip_places, vips) = vip_items
        .iter()
        .filter_map(|n| Some((n.place.clone(), vip(n, report)?)))
        .unzip();
    let mut served: Vec<Port> = Vec::new();
    let mut port_entry = Vec::new();
    let mut port_allow: Vec<Vec<Prefix>> = Vec::new();
    let is_closed = fields.get("allow").is_some_and(|n| !n.is_empty_list());
    for (i, item) in port_items.iter().enumerate() {
        // More than there are: some are listed twice, which is found later.
        let is_full = served.len() > usize::from(u16::MAX);
        if let (Some(entry), false) = (ports(item, report), is_full) {
            let closed = entry
                .allow
                .as_ref()
                .map_or(is_closed, |own| !own.is_empty());
            if is_real && entry.is_any() && !closed {
                let message =
                    "any port needs an `allow` that is not empty, its own or the cluster's";
                report.wrong(&item.place, message);
            }
            let access = match &entry.allow {
                None => 0,
                Some(own) => {
                    let at = port_allow.iter().position(|known| known == own);
                    let at = at.unwrap_or(port_allow.len());
                    if at == port_allow.len() {
                        port_allow.push(own.clone());
                    }
                    at as u16 + 1
                }
            };
            served.extend(entry.expand(access));
            port_entry.resize(served.len(), i);
        }
    }
    // Decoded once without a backend, so that a wrong one is found in any case.
    check::check(fields.get("check"), report);
    slow_start(fields.get("slow_start"), report);
    let mut servers = backends(backend_items, fields, report);
    let without_weight = |server: &backend::Decoded| server.backend.weight == 0;
    if let Some(node) = fields.get("backends")
        && !servers.is_empty()
        && servers.iter().all(without_weight)
    {
        let message = "every weight is 0: only clients with a sticky entry come in";
        report.warn(&node.place, message);
    }
    for server in &mut servers {
        let first = served.iter().find(|p| p.listen != Port::ANY);
        let first = first.map_or(0, |p| p.target);
        let port = server.backend.port.unwrap_or(first);
        server.backend.check = server.check.clone().map(|c| c.on(port));
        let lacks = server
            .backend
            .check
            .as_ref()
            .is_some_and(|check| check.port == 0);
        if is_real && lacks && !served.is_empty() {
            let message = "its check needs a `port`: no port is served by its number";
            report.wrong(&server.name, message);
        }
    }
    let (pool, snat_places) = fields
        .value("snat", report, snat)
        .unwrap_or((Snat::Auto, Vec::new()));

    let cluster = Cluster {
        name: cluster_name.unwrap_or_default(),
        vips,
        ports: served,
        access: access(fields, port_allow, report),
        new_connections: new_connections(fields.get("new_connections"), report),
        balance: fields
            .value("balance", report, balance)
            .unwrap_or(Balance::LeastConn),
        sticky: match fields.get("sticky") {
            Some(node) => sticky(node, report),
            None => Some(STICKY),
        },
        snat: pool,
        max_connections: fields
            .value("max_connections", report, |n, r| {
                number(n, r, 1..=MAX_CONNECTIONS)
            })
            .unwrap_or(40_000),
        refuse: refuse(fields.get("refuse"), report),
        unserved: fields
            .value("unserved", report, unserved)
            .unwrap_or(Unserved::Auto),
        unknown: fields
            .value("unknown", report, unknown)
            .unwrap_or(Unknown::Reset),
        fragments: fields
            .value("fragments", report, fragments)
            .unwrap_or(Fragments::Drop),
        timeouts: timeouts(fields.get("timeouts"), report),
        redispatch_after: fields
            .value("redispatch_after", report, redispatch_after)
            .unwrap_or(REDISPATCH_AFTER),
        persist: fields
            .value("persist", report, persist)
            .unwrap_or(Persist::Redispatch),
        on_backend_down: on_backend_down(fields.get("on_backend_down"), report),
        on_backend_removed: fields
            .value("on_backend_removed", report, on_backend_removed)
            .unwrap_or(RemovedAction::Drain),
        backends: servers.iter().map(|s| s.backend.clone()).collect(),
        retired: false,
    };
    Some(Decoded {
        cluster,
        name: fields.get("name").unwrap_or(node).place.clone(),
        vips: vip_places,
        port_entry,
        port_entries: port_items.iter().map(|n| n.place.clone()).collect(),
        backends: servers,
        snat: snat_places,
    })
}

/// The entries of a list that a real cluster must have and not leave empty.
fn items<'n>(
    fields: Fields<'n>,
    key: &str,
    what: &str,
    is_real: bool,
    report: &mut Report<'_>,
) -> &'n [Node] {
    let allowed = format!("a list of {what}");
    let items = if is_real {
        fields.required(key, &allowed, report, |n, r| n.list(what, r))
    } else {
        fields.value(key, report, |n, r| n.list(what, r))
    };
    if let (true, Some([]), Some(node)) = (is_real, items, fields.get(key)) {
        report.invalid(&node.place, node.shown(), "at least one entry");
    }
    items.unwrap_or_default()
}

fn balance(node: &Node, report: &mut Report<'_>) -> Option<Balance> {
    let words = [
        ("leastconn", Balance::LeastConn),
        ("roundrobin", Balance::RoundRobin),
    ];
    word(node, report, &words, &["source"])
}

fn unserved(node: &Node, report: &mut Report<'_>) -> Option<Unserved> {
    let words = [
        ("auto", Unserved::Auto),
        ("pass", Unserved::Pass),
        ("reset", Unserved::Reset),
        ("drop", Unserved::Drop),
    ];
    word(node, report, &words, &[])
}

fn unknown(node: &Node, report: &mut Report<'_>) -> Option<Unknown> {
    let words = [
        ("reset", Unknown::Reset),
        ("drop", Unknown::Drop),
        ("pass", Unknown::Pass),
    ];
    word(node, report, &words, &[])
}

fn fragments(node: &Node, report: &mut Report<'_>) -> Option<Fragments> {
    let words = [("drop", Fragments::Drop), ("kernel", Fragments::Kernel)];
    word(node, report, &words, &[])
}
