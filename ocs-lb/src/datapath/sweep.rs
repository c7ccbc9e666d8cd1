//! One walk of the sweep program over the flow map.

use std::time::{Duration, Instant};

use aya::programs::{ProgramError, RawTracePointRunOptions, TestRun as _};
use ocs_lb_common::abi::{ClusterLoad, Correction, Recount};
use ocs_lb_common::sweep::Report;

use super::load::{CORRECT, LoadError, Loaded, SWEEP, raw_tracepoint};

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
    #[error("sweep report or counts: {0}")]
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

/// One cluster's counts before and after a sweep, and what it counted itself.
pub struct Counted {
    /// Id of the cluster.
    pub cluster: u16,
    /// The datapath's counts before.
    pub before: Box<ClusterLoad>,
    /// Flows that the sweep met.
    pub recount: Box<Recount>,
    /// The datapath's counts after.
    pub after: Box<ClusterLoad>,
}

/// The same with a recount of the first `clusters` clusters.
///
/// # Errors
/// [`SweepError`].
pub fn run_counted(
    loaded: &mut Loaded,
    clusters: u16,
) -> Result<(Report, Duration, Vec<Counted>), SweepError> {
    let mut before = Vec::new();
    for cluster in 0..clusters {
        let id = u32::from(cluster);
        loaded.maps.recount.set(id, Recount::ZERO, 0)?;
        before.push(Box::new(loaded.maps.loads.get(&id, 0)?));
    }
    let (report, duration) = run(loaded)?;
    let mut counted = Vec::new();
    for (cluster, before) in (0..clusters).zip(before) {
        let id = u32::from(cluster);
        counted.push(Counted {
            cluster,
            before,
            recount: Box::new(loaded.maps.recount.get(&id, 0)?),
            after: Box::new(loaded.maps.loads.get(&id, 0)?),
        });
    }
    Ok((report, duration, counted))
}

/// Adds a repair to a backend's counts.
///
/// # Errors
/// [`SweepError`]; nothing was changed then.
pub fn correct(loaded: &mut Loaded, correction: &Correction) -> Result<(), SweepError> {
    loaded.maps.correction.set(0, *correction, 0)?;
    let program = raw_tracepoint(&mut loaded.ebpf, CORRECT)?;
    let result = program.test_run(RawTracePointRunOptions::new())?;
    if result.return_value != 0 {
        return Err(SweepError::Failed(result.return_value));
    }
    Ok(())
}
