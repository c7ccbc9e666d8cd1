//! The real peers that some tests use.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::host::{has, run};

/// A program, and the Debian package that has it.
const PEERS: [(&str, &str); 9] = [
    ("nginx", "nginx-light"),
    ("haproxy", "haproxy"),
    ("kamailio", "kamailio kamailio-tls-modules"),
    ("sipp", "sip-tester"),
    ("curl", "curl"),
    ("hatop", "hatop"),
    ("promtool", "prometheus"),
    ("tcpdump", "tcpdump"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];

/// Peers that this machine lacks.
pub fn missing() -> Vec<&'static str> {
    PEERS
        .iter()
        .map(|(program, _)| *program)
        .filter(|program| !has(program))
        .collect()
}

/// Installs them, without starting the services they bring.
///
/// # Errors
/// Without root or apt.
pub fn install() -> anyhow::Result<()> {
    let packages: Vec<&str> = PEERS
        .iter()
        .filter(|(program, _)| !has(program))
        .flat_map(|(_, package)| package.split(' '))
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() || !has("apt-get") {
        bail!("installing {} needs root and apt-get", packages.join(" "));
    }
    println!("setup: installing {}", packages.join(" "));
    let _guard = NoServices::new()?;
    run(apt().args(["update", "-qq"]))?;
    run(apt()
        .args(["install", "-qq", "-y", "--no-install-recommends"])
        .args(&packages))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null());
    command
}

/// While it lives, packages do not start their services (Debian policy 9.3.3:
/// `policy-rc.d` answers 101 for "not allowed").
struct NoServices {
    ours: bool,
}

impl NoServices {
    const PATH: &str = "/usr/sbin/policy-rc.d";

    fn new() -> anyhow::Result<Self> {
        let ours = !Path::new(Self::PATH).exists();
        if ours {
            std::fs::write(Self::PATH, "#!/bin/sh\nexit 101\n").context(Self::PATH)?;
            std::fs::set_permissions(Self::PATH, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(Self { ours })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_file(Self::PATH)
        {
            eprintln!("xtask: {} stays behind: {error}", Self::PATH);
        }
    }
}
