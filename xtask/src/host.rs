//! What this machine has to offer.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

/// Root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// Where kernels for guests and what they boot with lie; never in the tree.
pub fn vm() -> PathBuf {
    root().join(".tools/vm")
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}

/// Whether CI runs this: there, what is missing is a failure.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|ci| ci == "true")
}

/// Says in one line what programs in namespaces need and this machine lacks.
///
/// # Errors
/// That line.
pub fn check() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "root is missing (eBPF programs and network namespaces need it): run `sudo -E cargo xtask ...`"
        );
    }
    ensure!(
        Path::new("/sys/kernel/btf/vmlinux").exists(),
        "the kernel has no BTF (/sys/kernel/btf/vmlinux): use a kernel built with CONFIG_DEBUG_INFO_BTF"
    );
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    ensure!(
        version(&release) >= (6, 1),
        "Linux {} is too old: 6.1 or later is needed",
        release.trim()
    );
    Ok(())
}

/// Major and minor of a kernel release.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Cargo, in the workspace.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    command
}

/// Runs a command to its end.
///
/// # Errors
/// Where it cannot be started or fails.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{} {}", program(command), arguments(command));
    let status = command.status().with_context(|| shown.clone())?;
    ensure!(status.success(), "`{}` ended with {status}", shown.trim());
    Ok(())
}

fn program(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned()
}

fn arguments(command: &Command) -> String {
    command
        .get_args()
        .map(|argument| argument.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Whether a program is in PATH or in the directories of system programs.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(version("6.18.44-fc-v657\n"), (6, 18));
        assert_eq!(version("6.1.0-21-cloud-amd64"), (6, 1));
        assert_eq!(version(""), (0, 0));
    }
}
