//! One walk of the sweep program over the flow map.

use std::time::{Duration, Instant};

use aya::programs::{ProgramError, RawTracePointRunOptions, TestRun as _};
use ocs_lb_common::sweep::Report;

use super::load::{LoadError, Loaded, SWEEP, raw_tracepoint};

/// Why a sweep did not run.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// The object is not what it should be.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused.
    #[error("sweep: {0}")]
    Run(#[from] ProgramError),
    /// The report could not be read.
    #[error("sweep report: {0}")]
    Report(#[from] aya::maps::MapError),
    /// The program gave up.
    #[error("sweep: the program returned {0}")]
    Failed(u32),
}

/// Runs the sweep once, on this CPU: what it found and how long it took.
///
/// # Errors
/// [`SweepError`].
pub fn run(loaded: &mut Loaded) -> Result<(Report, Duration), SweepError> {
    let start = Instant::now();
    let result =
        raw_tracepoint(&mut loaded.ebpf, SWEEP)?.test_run(RawTracePointRunOptions::new())?;
    if result.return_value != 0 {
        return Err(SweepError::Failed(result.return_value));
    }
    Ok((loaded.maps.sweep_report.get(&0, 0)?, start.elapsed()))
}
