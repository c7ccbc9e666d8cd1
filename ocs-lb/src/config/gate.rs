//! Keys of the contract that this version accepts only at their default.

use super::access::Fields;
use super::problem::Report;
use super::tree::Node;
use super::value::{boolean, duration, only, unsupported};
use std::time::Duration;

/// Keys of a cluster that are all decoded here.
pub(super) const KEYS: [&str; 1] = ["profile"];

const FOREVER: Duration = Duration::from_secs(7 * 24 * 3600);

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
}
