//! The one sysctl the datapath needs.

use std::io;
use std::path::PathBuf;

/// `forwarding` of the loopback interface: lets `bpf_fib_lookup` answer as if
/// packets came in there, while no real interface forwards (design 3.4).
///
/// Switched on when made, back to what it was when dropped. Another process
/// may have switched it meanwhile; what it wrote is then overwritten.
pub struct LoopbackForwarding {
    path: PathBuf,
    before: String,
}

impl LoopbackForwarding {
    /// Switches it on.
    ///
    /// # Errors
    /// The file's.
    pub fn enable() -> io::Result<Self> {
        let path = PathBuf::from("/proc/sys/net/ipv4/conf/lo/forwarding");
        let before = std::fs::read_to_string(&path)?;
        std::fs::write(&path, "1")?;
        Ok(Self { path, before })
    }
}

impl Drop for LoopbackForwarding {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(&self.path, self.before.trim()) {
            tracing::warn!(path = %self.path.display(), %error, "sysctl not restored");
        }
    }
}
