//! `cargo xtask matrix`: the end-to-end tests in every mode of attaching, and one
//! table of what each came to.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::{host, setup};

/// Modes, and whether the tests of every change run in them again: without a
/// mode they run natively anyway.
const MODES: [(&str, bool); 3] = [("native", false), ("generic", true), ("tc", true)];

/// What a change is tested with in each mode: connections and their ends, moves,
/// topologies, ICMP.
const SMOKE: [&str; 4] = ["arms::", "icmp::", "ends::idle", "spread::"];

/// Tests that are about modes, or that start no balancer of their own choosing:
/// another mode is not another case.
const ELSEWHERE: [&str; 9] = [
    "changes::",
    "flood::",
    "host::",
    "lab::",
    "links::",
    "modes::",
    "next_hops::",
    "soak::",
    "wires::",
];

/// Runs them, as root; with `smoke`, a few in the modes that no other run has.
///
/// # Errors
/// A failed test, after the table.
pub fn matrix(smoke: bool) -> anyhow::Result<()> {
    host::check()?;
    setup::setup(false)?;
    host::run(&mut host::cargo(&[
        "build",
        "--quiet",
        "--package",
        "ocs-lb",
    ]))?;
    let modes: Vec<_> = MODES
        .into_iter()
        .filter_map(|(mode, again)| (again || !smoke).then_some(mode))
        .collect();
    let mut table: BTreeMap<String, BTreeMap<&str, String>> = BTreeMap::new();
    for mode in &modes {
        let start = Instant::now();
        for (test, result) in run(mode, smoke)? {
            table.entry(test).or_default().insert(mode, result);
        }
        let seconds = start.elapsed().as_secs_f64();
        println!("matrix: {mode} took {seconds:.0} s");
    }
    print(&table, &modes);
    let failed = table
        .values()
        .flat_map(BTreeMap::values)
        .filter(|result| *result != "ok")
        .count();
    ensure!(!table.is_empty(), "no test ran");
    ensure!(failed == 0, "{failed} of the matrix failed");
    Ok(())
}

/// Every test of one mode, and what it came to.
fn run(mode: &'static str, smoke: bool) -> anyhow::Result<Vec<(String, String)>> {
    let mut command = host::cargo(&["test", "--quiet", "--package", "ocs-lb-tests"]);
    command.args(["--test", "e2e", "--", "--ignored", "--test-threads=1"]);
    command.args(["--format", "pretty"]);
    if smoke {
        command.args(SMOKE);
    } else {
        for part in ELSEWHERE {
            command.args(["--skip", part]);
        }
    }
    let output = command
        .env("OCS_LB_MODE", mode)
        .output()
        .context("the end-to-end tests")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let results: Vec<_> = text.lines().filter_map(result).collect();
    if !output.status.success() {
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        ensure!(!results.is_empty(), "{mode}: {}", output.status);
    }
    Ok(results)
}

/// A test's line: `test NAME ... RESULT`.
fn result(line: &str) -> Option<(String, String)> {
    let (name, result) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.to_owned(), result.trim().to_owned()))
}

fn print(table: &BTreeMap<String, BTreeMap<&str, String>>, modes: &[&str]) {
    let width = table.keys().map(String::len).max().unwrap_or(0);
    let row = |name: &str, cells: Vec<&str>| {
        let cells: String = cells.iter().map(|cell| format!("  {cell:<8}")).collect();
        println!("{name:width$}{}", cells.trim_end());
    };
    row("test", modes.to_vec());
    for (name, results) in table {
        let cell = |mode: &&str| results.get(*mode).map_or("-", String::as_str);
        row(name, modes.iter().map(cell).collect());
    }
}
