//! `cargo xtask setup`: what the build needs beyond a Rust toolchain.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::host::{cargo, root, run};
use crate::tools;

/// The linker's version: the newest that opens this compiler's own LLVM.
const LINKER: &str = "0.10.3";

/// Installs what is missing.
///
/// # Errors
/// What could not be installed.
pub fn setup(with_tools: bool) -> anyhow::Result<()> {
    toolchain()?;
    linker()?;
    if with_tools {
        tools::install()?;
    }
    Ok(())
}

/// The standard library's source: `core` is built for the eBPF target.
fn toolchain() -> anyhow::Result<()> {
    let output = Command::new("rustc")
        .current_dir(root())
        .args(["--print", "sysroot"])
        .output()
        .context("rustc is missing: install Rust 1.95.0 (https://rustup.rs)")?;
    ensure!(
        output.status.success(),
        "rustc does not run: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let sysroot = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    if sysroot.join("lib/rustlib/src/rust/library/core").is_dir() {
        return Ok(());
    }
    println!("setup: adding rust-src (core is built for the eBPF target)");
    run(Command::new("rustup")
        .current_dir(root())
        .args(["component", "add", "rust-src"]))
    .context("rust-src could not be added")
}

fn linker() -> anyhow::Result<()> {
    let tools = root().join(".tools");
    let ours = tools.join("bin/bpf-linker");
    if is_linker(&ours) || is_linker(Path::new("bpf-linker")) {
        return Ok(());
    }
    println!("setup: installing bpf-linker {LINKER} into .tools (about two minutes, once)");
    run(cargo(&["install", "bpf-linker", "--version", LINKER])
        .args(["--locked", "--quiet", "--root"])
        .arg(&tools)
        // The compiler's own flags for this workspace must not leak in.
        .env_remove("CARGO_ENCODED_RUSTFLAGS"))
    .context("bpf-linker could not be installed")
}

/// Whether this is the pinned linker.
fn is_linker(path: &Path) -> bool {
    Command::new(path)
        .arg("--version")
        .output()
        .is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout)
                .trim()
                .ends_with(LINKER)
        })
}
