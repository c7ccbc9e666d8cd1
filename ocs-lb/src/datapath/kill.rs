//! One walk of the kill program over the flow map.

use aya::maps::MapError;
use aya::programs::{ProgramError, RawTracePointRunOptions, TestRun as _};
use ocs_lb_common::abi::{KillReport, KillRequest};

use super::load::{KILL, LoadError, Loaded, raw_tracepoint};

/// Why a walk did not run.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// The object is not what it should be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused.
    #[error("kill: {0}")]
    Run(#[from] ProgramError),
    /// The request could not be written, or the report not be read.
    #[error("kill request or report: {0}")]
    Map(#[from] MapError),
    /// The program gave up.
    #[error("kill: the program returned {0}")]
    Failed(u32),
}

/// Ends flows that `request` means, on this CPU, at most as many as it says.
///
/// # Errors
/// [`KillError`]. What the walk ended before it failed stays ended.
pub fn run(loaded: &mut Loaded, request: &KillRequest) -> Result<KillReport, KillError> {
    loaded.maps.kill_request.set(0, *request, 0)?;
    let result = raw_tracepoint(&mut loaded.ebpf, KILL)?.test_run(RawTracePointRunOptions::new())?;
    if result.return_value != 0 {
        return Err(KillError::Failed(result.return_value));
    }
    Ok(loaded.maps.kill_report.get(&0, 0)?)
}
