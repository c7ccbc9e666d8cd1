//! `cargo xtask bench`: the measures, as root and in release builds.

use std::path::Path;

use anyhow::bail;

use crate::{host, setup};

/// Name of a measure and the program that makes it.
const BENCHES: [(&str, &str); 3] = [
    ("packet", "bench-packet"),
    ("alloc", "bench-alloc"),
    ("bulk", BULK),
];

/// The one that starts the balancer.
const BULK: &str = "bench-bulk";

/// Runs the named measures, or all.
///
/// # Errors
/// An unknown name, or a measure's.
pub fn bench(names: &[String], json: Option<&Path>) -> anyhow::Result<()> {
    let known = BENCHES.map(|(name, _)| name);
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "there is no measure `{unknown}`; there are: {}",
            known.join(", ")
        );
    }
    if json.is_some() && BENCHES.len() > 1 && names.len() != 1 {
        bail!("--json takes one measure; name it: {}", known.join(", "));
    }
    host::check()?;
    setup::setup(false)?;
    for (name, program) in BENCHES {
        if !names.is_empty() && !names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let mut command = host::cargo(&["run", "--release", "--quiet", "--package"]);
        command.args(["ocs-lb-tests", "--bin", program, "--"]);
        if program == BULK {
            host::run(&mut host::cargo(&[
                "build",
                "--release",
                "--quiet",
                "--package",
                "ocs-lb",
            ]))?;
            command.arg("--balancer");
            command.arg(host::target().join("release/ocs-lb"));
        }
        if let Some(path) = json {
            // The program runs in the workspace's root.
            let path = std::path::absolute(path)?;
            command.arg("--json").arg(path);
        }
        host::run(&mut command)?;
    }
    Ok(())
}
