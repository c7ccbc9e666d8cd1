//! Flows that were killed, from their ring buffer.

use aya::maps::{MapData, RingBuf};
use ocs_lb_common::abi::Kill;
use ocs_lb_common::address::V4;
use tokio::io::unix::AsyncFd;

use super::record::read;

/// Records taken at once: two frames each are sent before other work goes on.
const AT_ONCE: usize = 1024;

/// The reading end of the ring.
pub struct Kills {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Kills {
    /// Takes the ring.
    ///
    /// # Errors
    /// Where the runtime cannot poll it.
    pub fn new(ring: RingBuf<MapData>) -> std::io::Result<Self> {
        // SAFETY: the ring owns its descriptor and keeps it open as long as
        // it lives, which is as long as the registration.
        let ring = unsafe { AsyncFd::register(ring) }?;
        Ok(Self { ring })
    }

    /// Waits for killed flows and takes what is there, not more than can be
    /// dealt with before other work.
    ///
    /// # Errors
    /// The poll's.
    pub async fn next(&mut self) -> std::io::Result<Vec<Kill<V4>>> {
        let mut guard = self.ring.readable_mut().await?;
        let mut kills = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(item) = guard.get_inner_mut().next() else {
                guard.clear_ready();
                break;
            };
            kills.extend(read::<Kill<V4>>(&item));
        }
        Ok(kills)
    }
}
