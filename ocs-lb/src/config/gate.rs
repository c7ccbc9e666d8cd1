//! Keys of the contract that this version accepts only at their default.

use super::access::Fields;
use super::problem::Report;
use super::tree::Node;
use super::value::{boolean, duration, only, unsupported};
use std::time::Duration;

/// Keys of a cluster that are all decoded here.
pub(super) const KEYS: [&str; 2] = ["profile", "slow_start"];

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

/// Checks the keys of one cluster. Where the documented default does something
/// that this version does not do, and the cluster is `real`, a warning says so.
pub(super) fn cluster(fields: Fields<'_>, real: bool, report: &mut Report<'_>) {
    if let Some(node) = fields.get("profile") {
        only(node, report, "none", node.text().is_some());
    }
    slow_start(fields, real, report);
}

fn slow_start(fields: Fields<'_>, real: bool, report: &mut Report<'_>) {
    let mut is_off = false;
    if let Some(node) = fields.get("slow_start")
        && let Some(value) = duration(node, report, Duration::ZERO..=FOREVER)
    {
        is_off = value.is_zero();
        if !is_off && value != Duration::from_secs(60) {
            unsupported::<()>(node, report, "0s, 60s");
        }
    }
    if real && !is_off {
        let place = place_of(fields, "slow_start");
        report.warn(
            &place,
            "this version gives a backend that comes up its full weight at once; \
             `slow_start: 0s` says so",
        );
    }
}

/// Where `key` stands, or the mapping that lacks it.
fn place_of(fields: Fields<'_>, key: &str) -> super::problem::Place {
    match fields.get(key) {
        Some(node) => node.place.clone(),
        None => super::problem::Place {
            line: fields.node.place.line,
            path: super::tree::join(&fields.node.place.path, key),
        },
    }
}
