//! The programs' own log, for debugging.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Hands on what the programs log, until the runtime ends. A failure costs the
/// log only and is said there.
pub fn forward(ebpf: &mut Ebpf) {
    let logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "the datapath's log is not read");
            return;
        }
    };
    // SAFETY: the logger owns its ring and keeps it open as long as it lives.
    let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger = match logger {
        Ok(logger) => logger,
        Err(error) => {
            tracing::warn!(%error, "the datapath's log is not read");
            return;
        }
    };
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
}
