//! `cargo xtask vm-load`: every program before the verifiers of the oldest
//! kernels that are promised, in a guest.

mod guest;
mod image;
mod kernel;

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use ocs_lb_test_support::vm::Trial;

use crate::{host, setup};
use guest::Findings;
use kernel::Kernel;

/// A guest that takes longer hangs; it needs seconds.
const LIMIT: Duration = Duration::from_secs(180);

/// Tries the programs on every kernel and prints what came of it.
///
/// # Errors
/// What is missing, a guest that does not end, a program that is refused or
/// exceeds its budget.
pub fn load() -> anyhow::Result<()> {
    try_on(&ready()?)
}

/// The same, but outside CI what is missing is only said.
///
/// # Errors
/// As of [`load`]; what is missing only with `CI=true`.
pub fn load_if_ready() -> anyhow::Result<()> {
    match ready() {
        Ok(kernels) => try_on(&kernels),
        Err(error) if host::is_ci() => Err(error.context("CI needs every kernel")),
        Err(error) => {
            println!("vm-load: skipped, other kernels were not tried: {error:#}");
            Ok(())
        }
    }
}

/// The kernels, fetched where they are missing.
fn ready() -> anyhow::Result<Vec<Kernel>> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels are for x86_64 and need a program built there"
    );
    ensure!(
        host::has(guest::QEMU),
        "{} is missing: `cargo xtask setup --tools` installs it",
        guest::QEMU
    );
    kernel::kernels()
}

fn try_on(kernels: &[Kernel]) -> anyhow::Result<()> {
    setup::setup(false)?;
    let image = image::build()?;
    let mut rows = Vec::new();
    let mut faults = Vec::new();
    for kernel in kernels {
        println!("vm-load: {}", kernel.name);
        let start = Instant::now();
        match guest::run(&kernel.path, &image, LIMIT) {
            Ok(findings) => {
                println!("vm-load: took {:.1} s", start.elapsed().as_secs_f64());
                faults.extend(findings.trials.iter().filter_map(|trial| {
                    let fault = trial.fault()?;
                    Some(describe(&findings.kernel, trial, fault))
                }));
                rows.push(findings);
            }
            Err(error) => faults.push(format!("{}: {error:#}", kernel.name)),
        }
    }
    if !rows.is_empty() {
        print(&rows);
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(())
}

fn describe(kernel: &str, trial: &Trial, fault: &str) -> String {
    let log = trial.refusal.as_deref().unwrap_or_default();
    format!("{kernel}: {}: {fault}\n{log}", trial.program)
        .trim_end()
        .to_owned()
}

fn print(rows: &[Findings]) {
    println!(
        "{:28} {:20} {:>12} {:>8}  result",
        "kernel", "program", "instructions", "budget"
    );
    for findings in rows {
        for trial in &findings.trials {
            println!(
                "{:28} {:20} {:>12} {:>8}  {}",
                findings.kernel,
                trial.program,
                number(trial.instructions),
                number(trial.budget),
                trial.fault().unwrap_or("ok")
            );
        }
    }
}

fn number(value: Option<u32>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
