//! Keys of the contract that this version accepts only at their default.

use super::access::Fields;
use super::problem::Report;
use super::tree::{Data, Node};
use super::value::{boolean, duration, invalid, number, only, unsupported};
use std::time::Duration;

/// Keys of a cluster that are all decoded here.
pub(super) const KEYS: [&str; 5] = ["profile", "from", "allow", "deny", "new_connections"];

const FOREVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// `[]`, or a list that a later version will read.
pub(super) fn empty_list(node: &Node, report: &mut Report<'_>) {
    match &node.data {
        Data::List(items) if items.is_empty() => {}
        Data::List(_) => {
            unsupported::<()>(node, report, "[]");
        }
        _ => {
            invalid::<()>(node, report, "[]");
        }
    }
}

/// The number `default`; other numbers come with a later version.
pub(super) fn only_number(node: &Node, report: &mut Report<'_>, default: u64) {
    let value = number(node, report, 0..=u64::from(u32::MAX));
    if value.is_some_and(|v| v != default) {
        unsupported::<()>(node, report, default.to_string());
    }
}

/// The duration `default`; other durations come with a later version.
pub(super) fn only_duration(node: &Node, report: &mut Report<'_>, default: Duration) {
    let value = duration(node, report, Duration::ZERO..=FOREVER);
    if value.is_some_and(|v| v != default) {
        unsupported::<()>(node, report, super::value::show_duration(default));
    }
}

/// The boolean `default`.
pub(super) fn only_boolean(node: &Node, report: &mut Report<'_>, default: bool) {
    if boolean(node, report).is_some_and(|v| v != default) {
        unsupported::<()>(node, report, default.to_string());
    }
}

/// Checks the keys of one cluster.
pub(super) fn cluster(fields: Fields<'_>, report: &mut Report<'_>) {
    if let Some(node) = fields.get("profile") {
        only(node, report, "none", node.text().is_some());
    }
    for key in ["from", "allow", "deny"] {
        if let Some(node) = fields.get(key) {
            empty_list(node, report);
        }
    }
    if let Some(node) = fields.get("new_connections")
        && let Some(limits) = node.fields(&["per_source", "total"], report)
    {
        for key in ["per_source", "total"] {
            if let Some(node) = limits.get(key) {
                only_number(node, report, 0);
            }
        }
    }
}
