//! The servers of a cluster.

use ocs_lb_common::abi::MAX_BACKENDS;

use super::access::Fields;
use super::address::{address, port};
use super::check::{PartialCheck, check};
use super::policy::slow_start;
use super::problem::{Place, Report};
use super::tree::{Node, overlay};
use super::value::{boolean, name, number};
use crate::model::Backend;

const KEYS: [&str; 9] = [
    "name",
    "address",
    "port",
    "weight",
    "backup",
    "check",
    "slow_start",
    "max_connections",
    "addresses",
];

/// A backend with the places that checks across keys point to.
pub(super) struct Decoded {
    /// The backend; its check still lacks the default port.
    pub backend: Backend,
    /// Its check.
    pub check: Option<PartialCheck>,
    /// Where its name stands.
    pub name: Place,
    /// Where its address stands.
    pub address: Place,
    /// Where its fixed port stands.
    pub port: Option<Place>,
}

/// Decodes `backends` of `cluster`; what is wrong is left out.
pub(super) fn backends(
    items: &[Node],
    cluster: Fields<'_>,
    report: &mut Report<'_>,
) -> Vec<Decoded> {
    if let Some(extra) = items.get(MAX_BACKENDS) {
        let message = format!("{} backends; allowed: at most {MAX_BACKENDS}", items.len());
        report.wrong(&extra.place, message);
    }
    items
        .iter()
        .take(MAX_BACKENDS)
        .filter_map(|item| backend(item, cluster, report))
        .collect()
}

fn backend(node: &Node, cluster: Fields<'_>, report: &mut Report<'_>) -> Option<Decoded> {
    let fields = node.fields(&KEYS, report)?;
    fields.refuse_keys(&["max_connections", "addresses"], report);
    let inherited = cluster.raw("check");
    let merged = match (inherited, fields.raw("check")) {
        (Some(base), Some(own)) => Some(overlay(base, own)),
        (base, own) => own.or(base).cloned(),
    };
    let check = check(merged.as_ref(), report);
    let weight = fields.value("weight", report, |n, r| number(n, r, 0..=256));
    let backup = fields.value("backup", report, boolean);
    let inherited = cluster.raw("slow_start");
    let slow_start = slow_start(fields.raw("slow_start").or(inherited), report);
    let target = fields.value("port", report, port);
    let name = fields.required("name", "a name", report, name);
    let address = fields.required("address", "an IPv4 address", report, address);
    let place = |key| fields.get(key).map(|n| n.place.clone());
    Some(Decoded {
        name: place("name")?,
        address: place("address")?,
        port: place("port"),
        check,
        backend: Backend {
            name: name?,
            address: address?,
            port: target,
            weight: weight.unwrap_or(1),
            backup: backup.unwrap_or(false),
            slow_start,
            check: None,
            retired: false,
        },
    })
}
