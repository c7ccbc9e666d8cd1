//! The mode that a whole run of the end-to-end tests attaches in, so that each
//! of them is a case of a matrix: `OCS_LB_MODE` is `native`, `generic` or `tc`;
//! without it, every balancer chooses by itself.

use std::env;

use anyhow::ensure;
use nix::net::if_::if_nameindex;

use crate::link;

/// The variable.
const VARIABLE: &str = "OCS_LB_MODE";

fn wanted() -> anyhow::Result<Option<String>> {
    let Some(mode) = env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let mode = mode.to_string_lossy().into_owned();
    ensure!(
        ["native", "generic", "tc"].contains(&mode.as_str()),
        "{VARIABLE} is {mode}; native, generic and tc are allowed"
    );
    Ok(Some(mode))
}

/// A configuration that says so of every interface of this namespace, where it
/// does not speak of interfaces itself.
///
/// # Errors
/// A mode that is none; the kernel's.
pub fn with_interfaces(config: &str) -> anyhow::Result<String> {
    let Some(mode) = wanted()? else {
        return Ok(config.to_owned());
    };
    if config.lines().any(|line| line.starts_with("interfaces:")) {
        return Ok(config.to_owned());
    }
    let mut names: Vec<_> = if_nameindex()?
        .iter()
        .map(|one| one.name().to_string_lossy().into_owned())
        .filter(|name| name != "lo")
        .collect();
    names.sort_unstable();
    let entries: Vec<_> = names
        .iter()
        .map(|name| format!("{{name: {name}, mode: {mode}}}"))
        .collect();
    Ok(format!("{config}\ninterfaces: [{}]\n", entries.join(", ")))
}

/// Makes an end of a pair of links what the mode has to deal with: for the
/// traffic classifier a card that leaves out checksums and sends segments beyond
/// the MTU, for XDP a plain wire.
///
/// # Errors
/// The ioctl's.
pub fn prepare(name: &str) -> anyhow::Result<()> {
    match wanted()?.as_deref() {
        Some("tc") => link::card_like(name),
        _ => link::wire_like(name),
    }
}
