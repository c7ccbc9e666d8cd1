//! The programs that walk the flow map, and time that passes without waiting.

use anyhow::{Result, ensure};
use aya::programs::{RawTracePointRunOptions, TestRun as _};
use ocs_lb::datapath::load::{CORRECT, KILL, StickyTable, raw_tracepoint};
use ocs_lb::datapath::record::read;
use ocs_lb_common::abi::{Correction, Event, Kill, KillReport, KillRequest, Recount};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks::Ticks;

use super::World;

/// `BPF_EXIST` (`include/uapi/linux/bpf.h`).
const EXIST: u64 = 2;

impl World {
    /// Makes all that is recorded older, as if so many ticks had passed.
    ///
    /// # Errors
    /// The maps'.
    pub fn age(&mut self, ticks: u32) -> Result<()> {
        let older = |at: Ticks| Ticks(at.0.wrapping_sub(ticks));
        for (key, mut flow) in self.flows()? {
            flow.last_seen = older(flow.last_seen);
            if flow.is_reverse() {
                // Its flow's birth.
                flow.cold = flow.cold.wrapping_sub(ticks);
            }
            self.loaded.maps.flows.insert(key, flow, EXIST)?;
        }
        for at in 0..self.loaded.maps.half_open.len() {
            let mut pending = self.loaded.maps.half_open.get(&at, 0)?;
            if pending.born != 0 {
                pending.sent = older(pending.sent);
                pending.birth = older(pending.birth);
                self.loaded.maps.half_open.set(at, pending, 0)?;
            }
        }
        let mut load = self.load()?;
        for answered in load.answered.iter_mut().filter(|at| at.0 != 0) {
            *answered = older(*answered);
        }
        self.loaded.maps.loads.set(0, load, 0)?;
        let maps = &mut self.loaded.maps;
        let tables = maps.sticky.iter_mut().chain([&mut maps.pending_sticky]);
        for table in tables {
            let entries: Vec<_> = StickyTable::iter(table).collect::<Result<_, _>>()?;
            for (key, mut value) in entries {
                let age = u64::from(ticks) << 20;
                value.last_used_ns = value.last_used_ns.saturating_sub(age);
                table.insert(key, value, EXIST)?;
            }
        }
        Ok(())
    }

    /// Ends the flows of a request.
    ///
    /// # Errors
    /// The kernel's.
    pub fn kill(&mut self, request: KillRequest) -> Result<KillReport> {
        self.loaded.maps.kill_request.set(0, request, 0)?;
        self.trace(KILL)?;
        Ok(self.loaded.maps.kill_report.get(&0, 0)?)
    }

    /// What the controller was told of the flows killed since the last call.
    pub fn kills(&mut self) -> Vec<Kill<V4>> {
        let Some(ring) = &mut self.loaded.kills else {
            return Vec::new();
        };
        std::iter::from_fn(|| read(&ring.next()?)).collect()
    }

    /// Repairs counts.
    ///
    /// # Errors
    /// The kernel's.
    pub fn correct(&mut self, correction: Correction) -> Result<()> {
        self.loaded.maps.correction.set(0, correction, 0)?;
        self.trace(CORRECT)
    }

    /// Flows as a fresh sweep counts them.
    ///
    /// # Errors
    /// The kernel's.
    pub fn recount(&mut self) -> Result<Recount> {
        self.loaded.maps.recount.set(0, Recount::ZERO, 0)?;
        self.sweep()?;
        Ok(self.loaded.maps.recount.get(&0, 0)?)
    }

    /// The events since the last call.
    pub fn events(&mut self) -> Vec<Event<V4>> {
        std::iter::from_fn(|| self.event()).collect()
    }

    /// Events that found the ring full.
    ///
    /// # Errors
    /// The map's.
    pub fn events_lost(&self) -> Result<u64> {
        Ok(self.loaded.maps.events_lost.get(&0, 0)?.iter().sum())
    }

    fn trace(&mut self, name: &'static str) -> Result<()> {
        let program = raw_tracepoint(&mut self.loaded.ebpf, name)?;
        let result = program.test_run(RawTracePointRunOptions::new())?;
        ensure!(result.return_value == 0, "{name}: {}", result.return_value);
        Ok(())
    }
}
