//! What `check` says about a valid configuration.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::value::show_duration;
use super::{Loaded, Warning};
use crate::model::bill::{Bill, SnatRow};
use crate::model::{Cluster, DownAction, Persist, Port, RemovedAction};

/// The answer of `check --json` for a valid file; for an invalid one it is
/// [`Problems`](super::Problems).
#[derive(Debug, Clone, Copy, Serialize)]
pub struct CheckReport<'a> {
    /// What the author should know.
    pub warnings: &'a [Warning],
    /// What the configuration costs and carries.
    pub bill: &'a Bill,
}

impl<'a> CheckReport<'a> {
    /// The report on `loaded` with its `bill`.
    pub fn new(loaded: &'a Loaded, bill: &'a Bill) -> Self {
        Self {
            warnings: &loaded.warnings,
            bill,
        }
    }
}

/// Warnings and bill for a human, lines ended by `\n`.
pub fn render(loaded: &Loaded, bill: &Bill) -> String {
    let mut out = String::new();
    for warning in &loaded.warnings {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "warning: {warning}");
    }
    let mut maps = table(["map", "entries", "memory"]);
    for row in &bill.maps {
        maps.add_row([
            row.map.to_owned(),
            row.entries.to_string(),
            show_bytes(row.bytes),
        ]);
    }
    maps.add_row(["total".to_owned(), String::new(), show_bytes(bill.bytes)]);
    align_right(&mut maps, 1..=2);
    let mut snat = table([
        "cluster",
        "backend",
        "ports",
        "SNAT addresses",
        "ports each",
        "flows per port",
    ]);
    for rows in bill.snat.chunk_by(is_one_line) {
        let Some(row) = rows.first() else { continue };
        snat.add_row([
            row.cluster.clone(),
            row.backend.clone(),
            show_ports(rows),
            row.addresses.to_string(),
            row.ports_each.to_string(),
            row.flows.to_string(),
        ]);
    }
    align_right(&mut snat, 3..=5);
    let _ = write!(
        out,
        "Memory\n{}\n\nSNAT capacity\n{}\n",
        trim(&maps),
        trim(&snat)
    );
    let _ = write!(
        out,
        "\nFailures\n{}\n",
        trim(&failures(&loaded.model.clusters))
    );
    if bill.snat.iter().any(|row| row.flows == 0) {
        out.push_str(
            "warning: no port is left for SNAT: net.ipv4.ip_local_port_range covers \
             1024-65535; narrow it or give a pool with `snat`\n",
        );
    }
    out
}

/// What each cluster does when a backend fails or is removed.
fn failures(clusters: &[Cluster]) -> Table {
    let mut rows = table([
        "cluster",
        "persist",
        "redispatch after",
        "flows of a removed backend",
        "flows of a dead backend",
        "a second",
        "guard",
    ]);
    for cluster in clusters {
        let down = cluster.on_backend_down;
        let (action, rate, guard) = match down.action {
            DownAction::Keep => ("keep", String::new(), ""),
            DownAction::Reset => {
                let guard = if down.guard { "on" } else { "off" };
                ("reset", down.rate.to_string(), guard)
            }
        };
        rows.add_row([
            cluster.name.clone(),
            match cluster.persist {
                Persist::Redispatch => "redispatch",
                Persist::Haproxy => "haproxy",
                Persist::Strict => "strict",
            }
            .to_owned(),
            show_duration(cluster.redispatch_after),
            match cluster.on_backend_removed {
                RemovedAction::Drain => "drain",
                RemovedAction::Reset => "reset",
            }
            .to_owned(),
            action.to_owned(),
            rate,
            guard.to_owned(),
        ]);
    }
    align_right(&mut rows, 5..=5);
    rows
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    table
}

fn align_right(table: &mut Table, columns: std::ops::RangeInclusive<usize>) {
    for i in columns {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Without the blanks that pad the last column.
fn trim(table: &Table) -> String {
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Rows that differ only by port share a line.
fn is_one_line(a: &SnatRow, b: &SnatRow) -> bool {
    a.cluster == b.cluster && a.backend == b.backend
}

/// `135, 443-444, 5060`, the rest by number from the sixth part on.
fn show_ports(rows: &[SnatRow]) -> String {
    const SHOWN: usize = 6;
    let runs: Vec<&[SnatRow]> = rows
        .chunk_by(|a, b| a.port != Port::ANY && a.port.checked_add(1) == Some(b.port))
        .collect();
    let mut parts: Vec<String> = runs
        .iter()
        .take(SHOWN)
        .map(|run| match run {
            [only] => Port::name(only.port),
            [first, .., last] => format!("{}-{}", first.port, last.port),
            [] => String::new(),
        })
        .collect();
    let hidden: usize = runs.iter().skip(SHOWN).map(|run| run.len()).sum();
    if hidden > 0 {
        parts.push(format!("{hidden} more"));
    }
    parts.join(", ")
}

/// Binary units, one decimal.
fn show_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return format!("{value:.1} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}
