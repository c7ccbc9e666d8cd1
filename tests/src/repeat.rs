//! Programs timed by `BPF_PROG_TEST_RUN`: `outer` writes a prepared frame
//! over the packet and tail-calls the program under test, many times a call.

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::{ProgramFd, TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, Uid};
use ocs_lb::datapath::floor;

use crate::prog::Action;

/// Bytes of every frame.
pub const FRAME: usize = 60;
/// Frames that can be prepared.
pub const FRAMES: usize = 65_536;

/// The programs of the floor and what they work on.
pub struct Repeat {
    /// The object, with the maps that are not taken yet.
    pub floor: Ebpf,
    frames: Array<MapData, [u8; 64]>,
    turn: Array<MapData, [u32; 2]>,
    target: ProgramArray<MapData>,
}

/// What every bench needs: root, and one CPU to stay on.
///
/// # Errors
/// Where either cannot be had.
pub fn pin(name: &str, cpu: usize) -> Result<()> {
    ensure!(
        Uid::effective().is_root(),
        "bench {name} needs root: it loads eBPF programs"
    );
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("pinning to one CPU")
}

impl Repeat {
    /// Loads `empty`, `floor` and `outer`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> Result<Self> {
        let mut floor = EbpfLoader::new().load(floor::OBJECT)?;
        for name in ["empty", "floor", "outer"] {
            program(&mut floor, name)?.load()?;
        }
        let mut take = |name: &'static str| floor.take_map(name).context(name);
        Ok(Self {
            frames: take("FRAMES")?.try_into()?,
            turn: take("TURN")?.try_into()?,
            target: take("TARGET")?.try_into()?,
            floor,
        })
    }

    /// A program of the floor.
    ///
    /// # Errors
    /// An unknown name.
    pub fn program(&mut self, name: &str) -> Result<ProgramFd> {
        Ok(program(&mut self.floor, name)?.fd()?.try_clone()?)
    }

    /// Prepares frames, a power of two of them.
    ///
    /// # Errors
    /// A map's.
    pub fn prepare(&mut self, frames: impl IntoIterator<Item = Vec<u8>>) -> Result<()> {
        let mut count = 0;
        for frame in frames {
            let mut prepared = [0; 64];
            prepared[..FRAME].copy_from_slice(&frame);
            self.frames.set(count, prepared, 0)?;
            count += 1;
        }
        ensure!(count.is_power_of_two(), "{count} frames");
        self.turn.set(0, [0, count - 1], 0)?;
        Ok(())
    }

    /// Nanoseconds a packet over so many packets that come in on an
    /// interface; the last one must be sent back.
    ///
    /// # Errors
    /// The kernel's, or another end.
    pub fn run(&mut self, target: &ProgramFd, ifindex: u32, packets: u32) -> Result<f64> {
        self.target.set(0, target, 0)?;
        let context: Vec<u8> = [0, FRAME as u32, 0, ifindex, 0, 0]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        let result = program(&mut self.floor, "outer")?.test_run(TestRunOptions {
            data_in: Some(&[0; FRAME]),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::new()
        })?;
        let action = Action::of_xdp(result.return_value);
        ensure!(action == Action::Tx, "the last packet met {action:?}");
        Ok(result.duration.as_nanos() as f64)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("program {name}"))?;
    Ok(program.try_into()?)
}

/// The middle one.
pub fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
