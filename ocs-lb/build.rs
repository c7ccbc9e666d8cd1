//! Builds the eBPF object that the binary embeds, and the one that the packet
//! bench compares with.
//!
//! Runs cargo itself: the target needs flags that `aya-build` cannot pass
//! (`-Ctarget-cpu=v3`, for atomics with a result).

use std::env;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

fn main() {
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR"));
    let root = manifest
        .parent()
        .expect("a member of the workspace")
        .to_path_buf();
    let inputs = [
        "ocs-lb-ebpf",
        "ocs-lb-common/src",
        "Cargo.lock",
        ".tools/bin",
    ];
    for input in inputs {
        println!("cargo:rerun-if-changed={}", root.join(input).display());
    }
    println!("cargo:rerun-if-env-changed=PATH");

    let target_dir = PathBuf::from(variable("OUT_DIR")).join("ebpf");
    let objects = build(&root, &target_dir);
    for (variable, name) in [
        ("OCS_LB_EBPF_OBJECT", "ocs-lb-ebpf"),
        ("OCS_LB_FLOOR_OBJECT", "floor"),
    ] {
        println!(
            "cargo:rustc-env={variable}={}",
            by_content(&objects.join(name)).display()
        );
    }
}

/// A copy of a file whose name says what is in it: every crate that includes
/// it is compiled anew when it changes, whichever build made it.
fn by_content(object: &Path) -> PathBuf {
    let bytes = std::fs::read(object).unwrap_or_else(|error| fail(&error.to_string()));
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let copy = object.with_extension(format!("{:016x}", hasher.finish()));
    if let Err(error) = std::fs::write(&copy, bytes) {
        fail(&error.to_string());
    }
    copy
}

/// Builds the objects and returns their directory.
fn build(root: &Path, target_dir: &Path) -> PathBuf {
    let mut flags = vec![
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Version 3 of the instruction set: atomics with a result.
        "-Ctarget-cpu=v3".to_owned(),
        // Packet headers are not aligned; x86 and arm64 load them whole.
        "-Clink-arg=--cpu-features=+allows-misaligned-mem-access".to_owned(),
    ];
    // xtask installs the pinned linker here; else it is looked for in PATH.
    let linker = root.join(".tools/bin/bpf-linker");
    if linker.exists() {
        flags.push(format!("-Clinker={}", linker.display()));
    }
    let status = Command::new(variable("CARGO"))
        .current_dir(root)
        .args(["build", "--release", "--locked", "--package", "ocs-lb-ebpf"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .arg("--target-dir")
        .arg(target_dir)
        // Stable with unstable features: there is no stable target for eBPF.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR))
        .env_remove("RUSTC")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTC_WRAPPER")
        .status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("the eBPF build ended with {status}")),
        Err(error) => fail(&format!("the eBPF build did not start: {error}")),
    }
    target_dir.join("bpfel-unknown-none/release")
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn fail(reason: &str) -> ! {
    eprintln!("{reason}");
    eprintln!("`cargo xtask setup` installs what the eBPF build needs (bpf-linker, rust-src)");
    std::process::exit(1)
}
