//! `cargo xtask soak`: the long tests.

use std::time::Instant;

use crate::{host, setup};

/// Random frames through the loaded program and the host's model.
const FRAMES: u32 = 10_000_000;

/// Runs them, as root, each of the longest for so many minutes.
///
/// # Errors
/// A failed test.
pub fn soak(minutes: u64) -> anyhow::Result<()> {
    host::check()?;
    setup::setup(false)?;
    let start = Instant::now();
    host::run(&mut host::cargo(&[
        "build",
        "--quiet",
        "--package",
        "ocs-lb",
    ]))?;
    host::run(
        host::cargo(&["test", "--quiet", "--package", "ocs-lb-tests"])
            .args(["--test", "e2e", "--", "--ignored", "--test-threads=1"])
            .args(["--nocapture", "soak::"])
            .env("OCS_LB_SOAK", "1")
            .env("OCS_LB_SOAK_MINUTES", minutes.to_string()),
    )?;
    host::run(
        host::cargo(&["test", "--quiet", "--package", "ocs-lb-tests"])
            .args(["--test", "differential", "--", "--ignored", "--nocapture"])
            .env("OCS_LB_FRAMES", FRAMES.to_string()),
    )?;
    println!("soak: all passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
