//! Nanoseconds per packet of an empty program, of the floor and of ours.
//!
//! `BPF_PROG_TEST_RUN` repeats `outer`, which writes a fresh packet of one of
//! N flows in random order and tail-calls the program under test; the
//! kernel's own duration, minus the same with the empty program.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData, ProgramArray};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use clap::Parser as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, Uid};
use ocs_lb::datapath::{floor, load};
use ocs_lb_common::abi::{Flow, FlowKey, NextHop, REVERSE};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::{Phase, StateWord};
use ocs_lb_common::translate::pair;
use ocs_lb_tests::net::{GATEWAY_MAC, WAN_MAC, backend_mac};
use ocs_lb_tests::packet::{End, Frame, flag};
use ocs_lb_tests::plan::{BACKENDS, Plan, SERVICE, SNAT};
use ocs_lb_tests::prog::{Action, World, key};
use ocs_lb_tests::random::Random;

/// Flows at once.
const SIZES: [usize; 3] = [1, 1024, 65_536];
/// Both directions of the most flows.
const ENTRIES: u32 = 131_072;
/// Bytes of a frame.
const FRAME: usize = 60;
/// Next hops of both directions.
const HOPS: [u16; 2] = [1, 2];

#[derive(clap::Parser)]
#[command(about = "Nanoseconds per packet: empty, floor, ours")]
struct Arguments {
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Packets of one measurement.
    #[arg(long, default_value_t = 500_000)]
    packets: u32,
    /// Measurements of each figure; the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// CPU to run on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
}

struct Row {
    direction: &'static str,
    flows: usize,
    /// Medians, net of the empty program but for the first.
    ns: [f64; 3],
}

struct Bench {
    world: World,
    floor: Ebpf,
    frames: Array<MapData, [u8; 64]>,
    turn: Array<MapData, [u32; 2]>,
    target: ProgramArray<MapData>,
    floor_flows: HashMap<MapData, FlowKey<V4>, Flow<V4>>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if !Uid::effective().is_root() {
        eprintln!("bench packet needs root: it loads eBPF programs");
        std::process::exit(1);
    }
    let mut cpus = CpuSet::new();
    cpus.set(arguments.cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).context("pinning to one CPU")?;

    let mut bench = Bench::new()?;
    let mut rows = Vec::new();
    for flows in SIZES {
        let tuples = tuples(flows);
        bench.open(&tuples)?;
        for direction in ["forward", "reply"] {
            bench.prepare(&tuples, direction == "reply")?;
            let ns = bench.measure(&arguments)?;
            rows.push(Row {
                direction,
                flows,
                ns,
            });
        }
    }
    print(&rows);
    if let Some(path) = &arguments.json {
        std::fs::write(path, json(&rows, &arguments)).context("writing the figures")?;
    }
    Ok(())
}

/// Tuples of so many flows: what the client sends, what the backend sees.
fn tuples(flows: usize) -> Vec<[(End, End); 2]> {
    let tuple = |n: usize| {
        let client = ([203, 0, 113, (n >> 10) as u8], 1024 + (n & 1023) as u16);
        let snat = (SNAT, 1024 + (n >> 1) as u16);
        [(client, SERVICE), (snat, (BACKENDS[n & 1], 5061))]
    };
    (0..flows).map(tuple).collect()
}

impl Bench {
    fn new() -> Result<Self> {
        let plan = Plan {
            flows: ENTRIES,
            ..Plan::default()
        };
        let mut world = World::new(&plan)?;
        // One arm: whatever comes in goes out there, so that all programs end
        // with XDP_TX.
        let macs = [backend_mac(BACKENDS[0][3]), GATEWAY_MAC];
        for (id, destination) in HOPS.into_iter().zip(macs) {
            let hop = NextHop {
                destination,
                valid: 1,
                source: WAN_MAC,
                pad: 0,
                ifindex: world.net.wan,
                generation: 0,
            };
            world.loaded.maps.next_hops.set(u32::from(id), hop, 0)?;
        }
        let mut floor = EbpfLoader::new().load(floor::OBJECT)?;
        for name in ["empty", "floor", "outer"] {
            program(&mut floor, name)?.load()?;
        }
        let mut take = |name: &'static str| floor.take_map(name).context(name);
        Ok(Self {
            frames: take("FRAMES")?.try_into()?,
            turn: take("TURN")?.try_into()?,
            target: take("TARGET")?.try_into()?,
            floor_flows: take("FLOOR_FLOWS")?.try_into()?,
            floor,
            world,
        })
    }

    /// Writes established flows as the datapath would have left them, to its
    /// map and to the floor's.
    fn open(&mut self, tuples: &[[(End, End); 2]]) -> Result<()> {
        for [client, backend] in tuples {
            let (client, backend) = (key(client.0, client.1), key(backend.0, backend.1));
            let (mut there, mut reply) = pair(&client, &backend);
            for (entry, hop) in [&mut there, &mut reply].into_iter().zip(HOPS) {
                entry.next_hop = hop;
                entry.state = StateWord::born(1)
                    .with_phase(Phase::Established)
                    .with(StateWord::SYN_ACK);
                entry.last_seen = Ticks(1);
            }
            reply.flags = REVERSE;
            for (key, entry) in [(client, there), (backend.reversed(), reply)] {
                self.world.loaded.maps.flows.insert(key, entry, 0)?;
                self.floor_flows.insert(key, entry, 0)?;
            }
        }
        Ok(())
    }

    /// Prepares one frame of each flow, in random order.
    fn prepare(&mut self, tuples: &[[(End, End); 2]], reply: bool) -> Result<()> {
        let mut order: Vec<usize> = (0..tuples.len()).collect();
        Random::new(tuples.len() as u64).shuffle(&mut order);
        for (at, flow) in order.into_iter().enumerate() {
            let [client, backend] = tuples[flow];
            let (source, destination) = if reply {
                (backend.1, backend.0)
            } else {
                client
            };
            let mut frame = Frame::tcp(source, destination, flag::ACK).numbers(1, 1);
            frame.padding = FRAME - 54;
            let mut prepared = [0; 64];
            prepared[..FRAME].copy_from_slice(&frame.bytes());
            self.frames.set(at as u32, prepared, 0)?;
        }
        self.turn.set(0, [0, tuples.len() as u32 - 1], 0)?;
        Ok(())
    }

    /// The medians, measured in turns so that the machine's moods meet all.
    fn measure(&mut self, arguments: &Arguments) -> Result<[f64; 3]> {
        let mut samples = [const { Vec::new() }; 3];
        for _ in 0..arguments.rounds {
            let empty = self.once("empty", arguments.packets)?;
            let floor = self.once("floor", arguments.packets)?;
            let ours = self.once("ours", arguments.packets)?;
            for (samples, ns) in samples.iter_mut().zip([empty, floor - empty, ours - empty]) {
                samples.push(ns);
            }
        }
        Ok(samples.map(median))
    }

    fn once(&mut self, name: &str, packets: u32) -> Result<f64> {
        let fd = if name == "ours" {
            load::xdp(&mut self.world.loaded.ebpf)?.fd()?.try_clone()?
        } else {
            program(&mut self.floor, name)?.fd()?.try_clone()?
        };
        self.target.set(0, &fd, 0)?;
        let context: Vec<u8> = [0, FRAME as u32, 0, self.world.net.wan, 0, 0]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        let result = program(&mut self.floor, "outer")?.test_run(TestRunOptions {
            data_in: Some(&[0; FRAME]),
            ctx_in: Some(&context),
            repeat: packets,
            ..TestRunOptions::new()
        })?;
        let action = Action::from_code(result.return_value);
        ensure!(action == Action::Tx, "{name} ended with {action:?}");
        Ok(result.duration.as_nanos() as f64)
    }
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("program {name}"))?;
    Ok(program.try_into()?)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn print(rows: &[Row]) {
    println!("direction    flows   empty   floor    ours   ratio");
    for row in rows {
        let [empty, floor, ours] = row.ns;
        println!(
            "{:9} {:8} {empty:7.0} {floor:7.0} {ours:7.0} {:7.2}",
            row.direction,
            row.flows,
            ours / floor
        );
    }
    println!("ns per packet; floor and ours net of the empty program; ratio: ours to the floor");
    println!("not measured: driver, DMA, redirect to another interface, new flows, several CPUs");
}

fn json(rows: &[Row], arguments: &Arguments) -> String {
    let rows: Vec<_> = rows
        .iter()
        .map(|row| {
            serde_json::json!({
                "direction": row.direction,
                "flows": row.flows,
                "empty_ns": row.ns[0],
                "floor_ns": row.ns[1],
                "ours_ns": row.ns[2],
                "ratio": row.ns[2] / row.ns[1],
            })
        })
        .collect();
    let report = serde_json::json!({
        "packets": arguments.packets,
        "rounds": arguments.rounds,
        "cases": rows,
    });
    format!("{report:#}\n")
}
