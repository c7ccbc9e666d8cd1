//! `cargo xtask ci`: what a change must pass.

use std::process::Command;
use std::time::Instant;

use crate::{host, setup, test, vm};

/// Format, lints, docs, tools, tests, other kernels; says how long each took.
///
/// # Errors
/// The first step that fails.
pub fn ci() -> anyhow::Result<()> {
    let start = Instant::now();
    step("setup", || setup::setup(true))?;
    step("components", components)?;
    step("format", || {
        host::run(&mut host::cargo(&["fmt", "--check"]))
    })?;
    step("clippy", || {
        host::run(&mut host::cargo(&[
            "clippy",
            "--quiet",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    step("clippy, eBPF", clippy_ebpf)?;
    step("docs", || {
        host::run(host::cargo(&["doc", "--quiet", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    step("test", test::test)?;
    step("vm-load", vm::load_if_ready)?;
    println!("ci: passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let start = Instant::now();
    println!("ci: {name}");
    work()?;
    println!("ci: {name} took {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// The formatter and the linter, where the toolchain came without.
fn components() -> anyhow::Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        let present = host::cargo(&[subcommand, "--version"])
            .output()
            .is_ok_and(|output| output.status.success());
        if !present {
            host::run(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    Ok(())
}

/// The same lints for the programs; their build is that of `ocs-lb/build.rs`.
fn clippy_ebpf() -> anyhow::Result<()> {
    let flags = ["--cfg=bpf_target_arch=\"x86_64\"", "-Ctarget-cpu=v3"].join("\x1f");
    host::run(
        host::cargo(&["clippy", "--quiet", "--package", "ocs-lb-ebpf"])
            .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
            .args(["--target-dir", "target/clippy-ebpf"])
            .args(["--", "-D", "warnings"])
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags),
    )
}
