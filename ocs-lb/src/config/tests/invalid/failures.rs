//! What a cluster does when a backend fails or is removed.

use super::Edit::{Cluster, Replace, Top, Whole};
use super::all_refused;

#[test]
fn slow_start() {
    all_refused(vec![
        (
            "without a unit",
            Cluster("slow_start: 60"),
            8,
            "clusters[0].slow_start",
            "60 is not allowed; allowed: 0s to 168h, written as 500ms",
        ),
        (
            "of a backend",
            Replace("198.51.100.1}", "198.51.100.1, slow_start: soon}"),
            7,
            "clusters[0].backends[0].slow_start",
            "soon is not allowed; allowed: 0s to 168h",
        ),
    ]);
}

#[test]
fn persist_and_redispatch() {
    all_refused(vec![
        (
            "persist other",
            Cluster("persist: never"),
            8,
            "clusters[0].persist",
            "never is not allowed; allowed: redispatch, haproxy, strict",
        ),
        (
            "persist as a switch",
            Cluster("persist: off"),
            8,
            "clusters[0].persist",
            "off is not allowed; allowed: redispatch, haproxy, strict",
        ),
        (
            "persist a list",
            Cluster("persist: [strict]"),
            8,
            "clusters[0].persist",
            "[...] is not allowed",
        ),
        (
            "redispatch_after without a unit",
            Cluster("redispatch_after: 800"),
            8,
            "clusters[0].redispatch_after",
            "800 is not allowed; allowed: 1ms to 168h, written as 500ms",
        ),
        (
            "redispatch_after zero",
            Cluster("redispatch_after: 0"),
            8,
            "clusters[0].redispatch_after",
            "0 is not allowed; allowed: 1ms to 168h",
        ),
        (
            "redispatch_after too long",
            Cluster("redispatch_after: 169h"),
            8,
            "clusters[0].redispatch_after",
            "169h is not allowed",
        ),
        (
            "not of a backend",
            Replace("198.51.100.1}", "198.51.100.1, persist: strict}"),
            7,
            "clusters[0].backends[0].persist",
            "unknown key",
        ),
    ]);
}

#[test]
fn on_backend_removed() {
    all_refused(vec![
        (
            "another word",
            Cluster("on_backend_removed: keep"),
            8,
            "clusters[0].on_backend_removed",
            "keep is not allowed; allowed: drain, reset",
        ),
        (
            "a switch",
            Cluster("on_backend_removed: off"),
            8,
            "clusters[0].on_backend_removed",
            "off is not allowed; allowed: drain, reset",
        ),
        (
            "a mapping",
            Cluster("on_backend_removed: {action: reset}"),
            8,
            "clusters[0].on_backend_removed",
            "{...} is not allowed",
        ),
        (
            "not of a backend",
            Replace("198.51.100.1}", "198.51.100.1, on_backend_removed: reset}"),
            7,
            "clusters[0].backends[0].on_backend_removed",
            "unknown key",
        ),
    ]);
}

#[test]
fn on_backend_down() {
    all_refused(vec![
        (
            "a word",
            Cluster("on_backend_down: keep"),
            8,
            "clusters[0].on_backend_down",
            "keep is not allowed; allowed: a mapping with the keys action, rate, guard",
        ),
        (
            "action",
            Cluster("on_backend_down: {action: drop}"),
            8,
            "clusters[0].on_backend_down.action",
            "drop is not allowed; allowed: reset, keep",
        ),
        (
            "rate zero",
            Cluster("on_backend_down: {rate: 0}"),
            8,
            "clusters[0].on_backend_down.rate",
            "0 is not allowed; allowed: 1 to 1000000",
        ),
        (
            "rate too high",
            Cluster("on_backend_down: {rate: 1000001}"),
            8,
            "clusters[0].on_backend_down.rate",
            "allowed: 1 to 1000000",
        ),
        (
            "rate with a unit",
            Cluster("on_backend_down: {rate: 5k}"),
            8,
            "clusters[0].on_backend_down.rate",
            "5k is not allowed",
        ),
        (
            "guard",
            Cluster("on_backend_down: {guard: 1}"),
            8,
            "clusters[0].on_backend_down.guard",
            "1 is not allowed; allowed: true, false",
        ),
        (
            "unknown key",
            Cluster("on_backend_down: {rates: 1}"),
            8,
            "clusters[0].on_backend_down.rates",
            "unknown key; did you mean `rate`?",
        ),
        (
            "in defaults that a cluster hides",
            Whole(
                "\
version: 1
defaults: {on_backend_down: {rate: -1}}
clusters:
  - {name: a, vips: [192.0.2.1], ports: [1], on_backend_down: {rate: 1}, backends: [{name: b, address: 198.51.100.1}]}
",
            ),
            2,
            "defaults.on_backend_down.rate",
            "-1 is not allowed",
        ),
    ]);
}

#[test]
fn resets() {
    all_refused(vec![
        (
            "zero",
            Top("resets: {unknown_per_second: 0}"),
            8,
            "resets.unknown_per_second",
            "0 is not allowed; allowed: 1 to 10000000",
        ),
        (
            "a word",
            Top("resets: many"),
            8,
            "resets",
            "many is not allowed; allowed: a mapping with the keys unknown_per_second",
        ),
        (
            "a duration",
            Top("resets: {unknown_per_second: 5s}"),
            8,
            "resets.unknown_per_second",
            "5s is not allowed",
        ),
        (
            "unknown key",
            Top("resets: {per_second: 5}"),
            8,
            "resets.per_second",
            "unknown key; known here: unknown_per_second",
        ),
    ]);
}
