//! The parts of a cluster that say how flows are treated.

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::access::Fields;
use super::address::{FIRST_SNAT_PORT, address, snat_ports};
use super::gate::{only_boolean, only_duration};
use super::problem::{Place, Report};
use super::tree::{Data, Node};
use super::value::{boolean, duration, invalid, number, size, unsupported, word};
use crate::model::{
    DownAction, OnBackendDown, Persist, Refuse, RefuseAction, RemovedAction, Snat, Sticky, Timeouts,
};

/// Entries of a sticky table; the upper end locks about 6 GB.
const STICKY_SIZES: RangeInclusive<u32> = 1..=67_108_864;
const TIMES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(168 * 3600);

/// Flows reset in a second; more than a host can tell is no pace.
const RATES: RangeInclusive<u32> = 1..=1_000_000;

/// The documented default of `redispatch_after`.
pub(super) const REDISPATCH_AFTER: Duration = Duration::from_millis(800);

/// The documented default of `slow_start`.
const SLOW_START: Duration = Duration::from_secs(60);

/// The documented default of `sticky`.
pub(super) const STICKY: Sticky = Sticky {
    size: 256 * 1024,
    expire: Duration::from_secs(30 * 60),
};

/// `off` or `{by, size, expire, scope}`.
pub(super) fn sticky(node: &Node, report: &mut Report<'_>) -> Option<Sticky> {
    if node.is_off() {
        return None;
    }
    let fields = node.fields(&["by", "size", "expire", "scope"], report)?;
    fields.value("by", report, |n, r| word(n, r, &[("source", ())], &[]));
    if let Some(node) = fields.get("scope") {
        scope(node, report);
    }
    let entries = fields.value("size", report, |n, r| size(n, r, STICKY_SIZES));
    let expire = fields.value("expire", report, |n, r| duration(n, r, TIMES));
    Some(Sticky {
        size: entries.unwrap_or(STICKY.size),
        expire: expire.unwrap_or(STICKY.expire),
    })
}

fn scope(node: &Node, report: &mut Report<'_>) {
    // `group NAME` and `{group: NAME}` are both how people write it.
    let is_group = match &node.data {
        Data::Map(entries) => entries.iter().all(|e| e.key == "group"),
        _ => node.text().is_some_and(|t| t.starts_with("group ")),
    };
    if is_group {
        unsupported::<()>(node, report, "cluster");
    } else {
        word(node, report, &[("cluster", ())], &["port", "group"]);
    }
}

/// Where the addresses of a pool stand, for checks across clusters.
pub(super) type SnatPlaces = Vec<(IpAddr, Place)>;

/// `auto` or `{addresses, ports}`.
pub(super) fn snat(node: &Node, report: &mut Report<'_>) -> Option<(Snat, SnatPlaces)> {
    if node.text() == Some("auto") {
        return Some((Snat::Auto, Vec::new()));
    }
    if node.text().is_some() {
        return invalid(
            node,
            report,
            "auto, or {addresses: [...], ports: 1024-65535}",
        );
    }
    let fields = node.fields(&["addresses", "ports"], report)?;
    let ports = fields.value("ports", report, snat_ports);
    let ports = ports.unwrap_or((FIRST_SNAT_PORT, u16::MAX));
    let items = fields.required("addresses", "a list of IPv4 addresses", report, |n, r| {
        n.list("IPv4 addresses", r)
    })?;
    if items.is_empty() {
        let node = fields.get("addresses").unwrap_or(node);
        return invalid(node, report, "at least one address");
    }
    let mut places = Vec::new();
    let mut seen = HashSet::new();
    for item in items {
        let Some(address) = address(item, report) else {
            continue;
        };
        if !seen.insert(address) {
            report.wrong(&item.place, format!("{address} is listed twice"));
        }
        places.push((address, item.place.clone()));
    }
    let addresses = places.iter().map(|(address, _)| *address).collect();
    Some((Snat::Pool { addresses, ports }, places))
}

/// `{limit, snat, deny, no_backend}`, each `drop` or `reset`.
pub(super) fn refuse(node: Option<&Node>, report: &mut Report<'_>) -> Refuse {
    let mut refuse = Refuse {
        limit: RefuseAction::Drop,
        snat: RefuseAction::Reset,
        deny: RefuseAction::Drop,
        no_backend: RefuseAction::Reset,
    };
    let keys = ["limit", "snat", "deny", "no_backend"];
    let Some(fields) = node.and_then(|n| n.fields(&keys, report)) else {
        return refuse;
    };
    let words = [("drop", RefuseAction::Drop), ("reset", RefuseAction::Reset)];
    for (key, target) in [
        ("limit", &mut refuse.limit),
        ("snat", &mut refuse.snat),
        ("deny", &mut refuse.deny),
        ("no_backend", &mut refuse.no_backend),
    ] {
        if let Some(action) = fields.value(key, report, |n, r| word(n, r, &words, &[])) {
            *target = action;
        }
    }
    refuse
}

/// `{connect, client, server, half_closed, udp, keepalive_refreshes}`.
pub(super) fn timeouts(node: Option<&Node>, report: &mut Report<'_>) -> Timeouts {
    const HALF_HOUR: Duration = Duration::from_secs(30 * 60);
    let mut timeouts = Timeouts {
        connect: Duration::from_secs(4),
        client: HALF_HOUR,
        server: HALF_HOUR,
        half_closed: HALF_HOUR,
    };
    let keys = [
        "connect",
        "client",
        "server",
        "half_closed",
        "udp",
        "keepalive_refreshes",
    ];
    let Some(fields) = node.and_then(|n| n.fields(&keys, report)) else {
        return timeouts;
    };
    for (key, target) in [
        ("connect", &mut timeouts.connect),
        ("client", &mut timeouts.client),
        ("server", &mut timeouts.server),
        ("half_closed", &mut timeouts.half_closed),
    ] {
        if let Some(time) = fields.value(key, report, |n, r| duration(n, r, TIMES)) {
            *target = time;
        }
    }
    later_timeouts(fields, report);
    timeouts
}

/// The age of a try from which a SYN retransmission may move the flow.
pub(super) fn redispatch_after(node: &Node, report: &mut Report<'_>) -> Option<Duration> {
    duration(node, report, TIMES)
}

/// How long a weight grows; zero is not at all. An absent `node` is the default.
pub(super) fn slow_start(node: Option<&Node>, report: &mut Report<'_>) -> Duration {
    let given = node.filter(|node| !matches!(node.data, Data::Null));
    given
        .and_then(|node| duration(node, report, Duration::ZERO..=*TIMES.end()))
        .unwrap_or(SLOW_START)
}

/// `redispatch`, `haproxy` or `strict`.
pub(super) fn persist(node: &Node, report: &mut Report<'_>) -> Option<Persist> {
    let words = [
        ("redispatch", Persist::Redispatch),
        ("haproxy", Persist::Haproxy),
        ("strict", Persist::Strict),
    ];
    word(node, report, &words, &[])
}

/// `{action, rate, guard}`.
pub(super) fn on_backend_down(node: Option<&Node>, report: &mut Report<'_>) -> OnBackendDown {
    let default = OnBackendDown {
        action: DownAction::Reset,
        rate: 5000,
        guard: true,
    };
    let keys = ["action", "rate", "guard"];
    let Some(fields) = node.and_then(|n| n.fields(&keys, report)) else {
        return default;
    };
    let actions = [("reset", DownAction::Reset), ("keep", DownAction::Keep)];
    let action = fields.value("action", report, |n, r| word(n, r, &actions, &[]));
    let rate = fields.value("rate", report, |n, r| number(n, r, RATES));
    let guard = fields.value("guard", report, boolean);
    OnBackendDown {
        action: action.unwrap_or(default.action),
        rate: rate.unwrap_or(default.rate),
        guard: guard.unwrap_or(default.guard),
    }
}

/// `drain` or `reset`.
pub(super) fn on_backend_removed(node: &Node, report: &mut Report<'_>) -> Option<RemovedAction> {
    let words = [
        ("drain", RemovedAction::Drain),
        ("reset", RemovedAction::Reset),
    ];
    word(node, report, &words, &[])
}

fn later_timeouts(fields: Fields<'_>, report: &mut Report<'_>) {
    if let Some(node) = fields.get("udp") {
        only_duration(node, report, Duration::from_secs(60));
    }
    if let Some(node) = fields.get("keepalive_refreshes") {
        only_boolean(node, report, true);
    }
}
