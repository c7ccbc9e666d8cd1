//! What a reload changes, in words for an operator: pure.

use std::fmt::Debug;

use super::show::duration;
use super::{Backend, Check, CheckKind, Cluster, Interfaces, Model, Port, Prefix, Snat, Tls, Vip};

/// A key of the file and its value as text.
type Key = (&'static str, String);

/// What differs between two models, a line each: the host's keys, clusters in
/// the order of `new`, clusters that are gone. Retired entries are absent.
pub fn diff(old: &Model, new: &Model) -> Vec<String> {
    let mut lines = changed(&host(old), &host(new), ":");
    for cluster in new.clusters.iter().filter(|c| !c.retired) {
        match find(old, &cluster.name) {
            Some(before) => {
                let name = &cluster.name;
                let between = between(before, cluster).into_iter();
                lines.extend(between.map(|line| format!("cluster {name}: {line}")));
            }
            None => lines.push(format!("cluster {} added", cluster.name)),
        }
    }
    let before = old.clusters.iter().filter(|c| !c.retired);
    let gone = before.filter(|c| find(new, &c.name).is_none());
    lines.extend(gone.map(|c| format!("cluster {} removed", c.name)));
    lines
}

/// Keys that differ and that a running process cannot change: they hold after
/// the next start.
pub fn needs_restart(old: &Model, new: &Model) -> Vec<&'static str> {
    [
        ("metrics", old.metrics != new.metrics),
        ("admin", old.admin != new.admin),
        ("log", old.log != new.log),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

fn find<'m>(model: &'m Model, name: &str) -> Option<&'m Cluster> {
    let mut clusters = model.clusters.iter();
    clusters.find(|cluster| cluster.name == name && !cluster.retired)
}

/// `key: old -> new` for what differs; `sign` follows the key.
fn changed(old: &[Key], new: &[Key], sign: &str) -> Vec<String> {
    let pairs = old.iter().zip(new).filter(|(old, new)| old != new);
    pairs
        .map(|((key, old), (_, new))| format!("{key}{sign} {old} -> {new}"))
        .collect()
}

/// What differs within one cluster.
fn between(old: &Cluster, new: &Cluster) -> Vec<String> {
    let mut lines = changed(&keys(old), &keys(new), ":");
    for backend in living(new) {
        let label = label(backend, old);
        match living(old).find(|before| is_same(before, backend)) {
            Some(before) => {
                let changed = changed(&settings(before), &settings(backend), "");
                let changed = changed.into_iter();
                lines.extend(changed.map(|line| format!("backend {label}: {line}")));
            }
            None => lines.push(format!("backend {label} added")),
        }
    }
    for backend in living(old) {
        if !living(new).any(|now| is_same(now, backend)) {
            lines.push(format!("backend {} removed", label(backend, new)));
        }
    }
    lines
}

fn living(cluster: &Cluster) -> impl Iterator<Item = &Backend> {
    cluster.backends.iter().filter(|backend| !backend.retired)
}

/// With another address it is another backend.
fn is_same(a: &Backend, b: &Backend) -> bool {
    (&a.name, a.address) == (&b.name, b.address)
}

/// A backend's name, with its address where `other` has that name elsewhere.
fn label(backend: &Backend, other: &Cluster) -> String {
    let Backend { name, address, .. } = backend;
    if living(other).any(|b| b.name == *name && b.address != *address) {
        format!("{name} at {address}")
    } else {
        name.clone()
    }
}

/// The keys beside the clusters.
fn host(model: &Model) -> Vec<Key> {
    let Model {
        interfaces,
        manage_addresses,
        auto_last_hop,
        clusters: _,
        tables,
        unknown_resets,
        sweep_interval,
        admin,
        metrics,
        log,
    } = model;
    let sockets = admin
        .iter()
        .map(|socket| format!("{} {:04o}", socket.path.display(), socket.mode));
    let flows = tables.flows.map(|flows| flows.to_string());
    vec![
        ("interfaces", show_interfaces(interfaces)),
        ("manage_addresses", manage_addresses.to_string()),
        ("auto_last_hop", auto_last_hop.to_string()),
        ("tables.flows", flows.unwrap_or_else(|| "auto".to_owned())),
        ("tables.half_open", tables.half_open.to_string()),
        ("resets.unknown_per_second", unknown_resets.to_string()),
        ("sweep.interval", duration(*sweep_interval)),
        ("admin", list(sockets, "none")),
        ("metrics", or_off(metrics.as_ref(), ToString::to_string)),
        ("log.level", word(&log.level)),
    ]
}

/// The keys of a cluster but its name and backends.
fn keys(cluster: &Cluster) -> Vec<Key> {
    let Cluster {
        name: _,
        vips,
        ports,
        access,
        new_connections,
        balance,
        sticky,
        snat,
        max_connections,
        refuse,
        unserved,
        unknown,
        fragments,
        timeouts,
        redispatch_after,
        persist,
        on_backend_down,
        on_backend_removed,
        backends: _,
        retired: _,
    } = cluster;
    let sticky = or_off(sticky.as_ref(), |sticky| {
        format!("size {}, expire {}", sticky.size, duration(sticky.expire))
    });
    vec![
        ("vips", list(vips.iter().map(show_vip), "none")),
        ("ports", show_ports(ports)),
        (
            "ports[].allow",
            list(access.ports.iter().map(|l| show_prefixes(l)), "none"),
        ),
        ("from", show_prefixes(&access.from)),
        ("allow", show_prefixes(&access.allow)),
        ("deny", show_prefixes(&access.deny)),
        (
            "new_connections.per_source",
            new_connections.per_source.to_string(),
        ),
        ("new_connections.total", new_connections.total.to_string()),
        ("new_connections.burst", duration(new_connections.burst)),
        ("balance", word(balance)),
        ("sticky", sticky),
        ("persist", word(persist)),
        ("snat", show_snat(snat)),
        ("max_connections", max_connections.to_string()),
        ("refuse.limit", word(&refuse.limit)),
        ("refuse.snat", word(&refuse.snat)),
        ("refuse.deny", word(&refuse.deny)),
        ("refuse.no_backend", word(&refuse.no_backend)),
        ("unserved", word(unserved)),
        ("unknown", word(unknown)),
        ("fragments", word(fragments)),
        ("timeouts.connect", duration(timeouts.connect)),
        ("timeouts.client", duration(timeouts.client)),
        ("timeouts.server", duration(timeouts.server)),
        ("timeouts.half_closed", duration(timeouts.half_closed)),
        ("redispatch_after", duration(*redispatch_after)),
        ("on_backend_down.action", word(&on_backend_down.action)),
        ("on_backend_down.rate", on_backend_down.rate.to_string()),
        ("on_backend_down.guard", on_backend_down.guard.to_string()),
        ("on_backend_removed", word(on_backend_removed)),
    ]
}

/// The keys of a backend but its name and address.
fn settings(backend: &Backend) -> Vec<Key> {
    let Backend {
        name: _,
        address: _,
        port,
        weight,
        backup,
        slow_start,
        check,
        retired: _,
    } = backend;
    vec![
        ("port", or_none(port.as_ref(), ToString::to_string)),
        ("weight", weight.to_string()),
        ("backup", backup.to_string()),
        ("slow_start", duration(*slow_start)),
        ("check", or_off(check.as_ref(), show_check)),
    ]
}

fn show_check(check: &Check) -> String {
    let Check {
        kind,
        port,
        interval,
        fast_interval,
        down_interval,
        timeout,
        rise,
        fall,
        observe,
    } = check;
    let optional = |key: &str, value: &Option<_>| {
        value.map_or_else(String::new, |value| format!("{key} {}, ", duration(value)))
    };
    format!(
        "{}, port {port}, interval {}, {}{}timeout {}, rise {rise}, fall {fall}, observe {observe}",
        show_kind(kind),
        duration(*interval),
        optional("fast_interval", fast_interval),
        optional("down_interval", down_interval),
        duration(*timeout),
    )
}

fn show_kind(kind: &CheckKind) -> String {
    let mut shown = kind.word().to_owned();
    let mut add = |key: &str, value: &str| shown.extend([" ", key, " ", value]);
    let tls = match kind {
        CheckKind::Tcp => None,
        CheckKind::Tls(tls) => Some(tls),
        CheckKind::SipOptions(options) => {
            let transport = if options.tls.is_some() { "tls" } else { "tcp" };
            add("transport", transport);
            for (key, value) in [("from", &options.from), ("to", &options.to)] {
                if let Some(value) = value {
                    add(key, value);
                }
            }
            add("expect", &options.expect.to_string());
            options.tls.as_ref()
        }
        CheckKind::Http(request) => {
            add("tls", &request.tls.is_some().to_string());
            add("method", &request.method);
            add("path", &request.path);
            if let Some(host) = &request.host {
                add("host", host);
            }
            add("expect", &request.expect.to_string());
            request.tls.as_ref()
        }
    };
    if let Some(tls) = tls {
        shown.push_str(&show_tls(tls));
    }
    shown
}

fn show_tls(tls: &Tls) -> String {
    let sni = tls.sni.as_ref();
    let sni = sni.map_or_else(String::new, |sni| format!(" sni {sni}"));
    let verify = match &tls.verify {
        None => "false".to_owned(),
        Some(anchors) => {
            let file = anchors.file.as_ref();
            let of = file.map_or_else(
                || "the host's".to_owned(),
                |file| file.display().to_string(),
            );
            format!("true ca {of} ({})", anchors.certificates.len())
        }
    };
    format!("{sni} verify {verify}")
}

fn show_interfaces(interfaces: &Interfaces) -> String {
    match interfaces {
        Interfaces::Auto => "auto".to_owned(),
        Interfaces::Listed(listed) => {
            let shown = listed
                .iter()
                .map(|interface| format!("{} {}", interface.name, word(&interface.mode)));
            list(shown, "none")
        }
    }
}

fn show_vip(vip: &Vip) -> String {
    let prefix = vip
        .prefix
        .map_or_else(String::new, |bits| format!("/{bits}"));
    let interface = vip.interface.as_ref();
    let interface = interface.map_or_else(String::new, |name| format!(" on {name}"));
    format!("{}{prefix}{interface}", vip.address)
}

/// `443, 5070-5080, 444 to 4443`.
fn show_ports(ports: &[Port]) -> String {
    let is_run = |a: &Port, b: &Port| {
        let follows = a.listen.checked_add(1) == Some(b.listen) && a.listen != Port::ANY;
        follows && a.access == b.access && a.listen == a.target && b.listen == b.target
    };
    let shown = ports.chunk_by(is_run).map(|run| match run {
        [first, .., last] => format!("{}-{}", first.listen, last.listen),
        [one] if one.listen != one.target => format!("{} to {}", one.listen, one.target),
        _ => list(run.iter().map(|port| Port::name(port.listen)), "none"),
    });
    list(shown, "none")
}

/// Few as they are, many as their number and what tells them from others.
fn show_prefixes(prefixes: &[Prefix]) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};

    const SHOWN: usize = 8;
    if prefixes.len() <= SHOWN {
        return format!("[{}]", list(prefixes.iter().map(ToString::to_string), ""));
    }
    let mut hasher = DefaultHasher::new();
    prefixes.hash(&mut hasher);
    format!(
        "{} prefixes ({:08x})",
        prefixes.len(),
        hasher.finish() as u32
    )
}

fn show_snat(snat: &Snat) -> String {
    match snat {
        Snat::Auto => "auto".to_owned(),
        Snat::Pool { addresses, ports } => {
            let addresses = list(addresses.iter().map(ToString::to_string), "none");
            format!("{addresses} ports {}-{}", ports.0, ports.1)
        }
    }
}

/// The file's word for a value whose variant is named after it.
fn word(value: &impl Debug) -> String {
    format!("{value:?}").to_lowercase()
}

fn or_off<T>(value: Option<&T>, show: impl Fn(&T) -> String) -> String {
    value.map_or_else(|| "off".to_owned(), show)
}

fn or_none<T>(value: Option<&T>, show: impl Fn(&T) -> String) -> String {
    value.map_or_else(|| "none".to_owned(), show)
}

fn list(items: impl Iterator<Item = String>, empty: &str) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() {
        empty.to_owned()
    } else {
        items.join(", ")
    }
}

#[cfg(test)]
mod tests;
