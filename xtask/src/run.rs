//! `cargo xtask run -- --config FILE`: the balancer on this host.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::bail;

use crate::{host, setup};

/// Builds the balancer, unless one is given.
///
/// # Errors
/// What is missing, or the build's.
pub fn build() -> anyhow::Result<()> {
    if given().is_some() {
        return Ok(());
    }
    setup::setup(false)?;
    host::run(&mut host::cargo(&[
        "build",
        "--release",
        "--quiet",
        "--package",
        "ocs-lb",
    ]))
}

/// A balancer to run instead of building one: `OCS_LB_BINARY`.
fn given() -> Option<PathBuf> {
    std::env::var_os("OCS_LB_BINARY").map(PathBuf::from)
}

/// Path of the balancer.
pub fn binary() -> PathBuf {
    if let Some(path) = given() {
        return path;
    }
    host::target().join("release/ocs-lb")
}

/// Builds the balancer and becomes it.
///
/// # Errors
/// What is missing, or the build's.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    host::check()?;
    build()?;
    let error = Command::new(binary()).arg("run").args(arguments).exec();
    bail!("{}: {error}", binary().display())
}
