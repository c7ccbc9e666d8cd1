//! `cargo xtask test`: every test that this machine allows.

use std::time::Instant;

use anyhow::bail;

use crate::{host, matrix, setup, tools};

/// Runs unit and property tests, then, as root, the tests with programs and
/// namespaces.
///
/// # Errors
/// A failed test; in CI (`CI=true`) a missing peer as well.
pub fn test() -> anyhow::Result<()> {
    host::check()?;
    setup::setup(false)?;
    let start = Instant::now();
    println!("test: unit and property tests");
    host::run(&mut host::cargo(&["test", "--quiet"]))?;
    println!("test: programs and namespaces, as root");
    // The release balancer is what these tests start.
    host::run(&mut host::cargo(&[
        "build",
        "--quiet",
        "--package",
        "ocs-lb",
    ]))?;
    host::run(
        host::cargo(&["test", "--quiet"])
            .args([
                "--package",
                "ocs-lb-tests",
                "--package",
                "ocs-lb-test-support",
            ])
            .args(["--", "--ignored", "--test-threads=1"]),
    )?;
    println!("test: the same frames through traffic control");
    host::run(
        host::cargo(&["test", "--quiet", "--package", "ocs-lb-tests"])
            .args(["--test", "prog_run", "--", "--ignored", "--test-threads=1"])
            .env("OCS_LB_PROGRAM", "tc"),
    )?;
    println!("test: some end-to-end tests in the other modes");
    matrix::matrix(true)?;
    println!("test: all passed in {:.0} s", start.elapsed().as_secs_f64());
    let missing = tools::missing();
    if missing.is_empty() {
        println!("test: no real peer is missing");
        return Ok(());
    }
    println!(
        "test: real peers that this machine lacks: {}",
        missing.join(", ")
    );
    println!("test: `cargo xtask setup --tools` installs them");
    if host::is_ci() {
        bail!("CI needs every peer");
    }
    Ok(())
}
