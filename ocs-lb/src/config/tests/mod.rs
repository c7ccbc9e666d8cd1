//! The contract of the configuration file, by example.

mod any;
mod invalid;
mod several;
mod sources;
mod valid;

use super::{Loaded, Problems, parse};

/// The smallest valid file; tests edit it. Seven lines.
const BASE: &str = "\
version: 1
clusters:
  - name: a
    vips: [192.0.2.1]
    ports: [443, 5061]
    backends:
      - {name: b, address: 198.51.100.1}
";

fn check(text: &str) -> Result<Loaded, Problems> {
    parse(text, "t.yaml")
}

/// `BASE` with further lines of the cluster, from line 8 on.
fn with_cluster(lines: &str) -> String {
    let indented: Vec<String> = lines.lines().map(|l| format!("    {l}\n")).collect();
    format!("{BASE}{}", indented.concat())
}

/// `BASE` with further lines at the top level, from line 8 on.
fn with_top(lines: &str) -> String {
    format!("{BASE}{lines}\n")
}

/// `BASE` with one part of it replaced.
fn with(from: &str, to: &str) -> String {
    assert_eq!(BASE.matches(from).count(), 1, "{from} is not unique");
    BASE.replace(from, to)
}

#[track_caller]
fn valid(text: &str) -> Loaded {
    match check(text) {
        Ok(loaded) => loaded,
        Err(problems) => panic!("{problems}\nin\n{text}"),
    }
}
