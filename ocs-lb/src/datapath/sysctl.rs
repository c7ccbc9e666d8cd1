//! The one sysctl the datapath needs.

use std::io;

/// `forwarding` of the loopback interface: lets `bpf_fib_lookup` answer as if
/// packets came in there, while no real interface forwards (design 3.4).
const LOOPBACK_FORWARDING: &str = "/proc/sys/net/ipv4/conf/lo/forwarding";

/// Switches it on; what it was before.
///
/// # Errors
/// The file's.
pub fn enable() -> io::Result<String> {
    let before = std::fs::read_to_string(LOOPBACK_FORWARDING)?;
    std::fs::write(LOOPBACK_FORWARDING, "1")?;
    Ok(before.trim().to_owned())
}

/// Sets it back. Another process may have switched it meanwhile; what it wrote
/// is then overwritten.
pub fn restore(before: &str) {
    if let Err(error) = std::fs::write(LOOPBACK_FORWARDING, before) {
        tracing::warn!(path = LOOPBACK_FORWARDING, %error, "sysctl not restored");
    }
}
