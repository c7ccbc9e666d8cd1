//! Nanoseconds per packet of an empty program, of the floor and of ours.
//!
//! `BPF_PROG_TEST_RUN` repeats `outer`, which writes a fresh packet of one of
//! N flows in random order and tail-calls the program under test; the
//! kernel's own duration, minus the same with the empty program.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData};
use clap::Parser as _;
use ocs_lb::datapath::load;
use ocs_lb_common::abi::{Flow, FlowKey, NextHop, REVERSE};
use ocs_lb_common::address::V4;
use ocs_lb_common::ticks::Ticks;
use ocs_lb_common::track::{Phase, StateWord};
use ocs_lb_common::translate::pair;
use ocs_lb_tests::net::{GATEWAY_MAC, WAN_MAC, backend_mac};
use ocs_lb_tests::packet::{End, Frame, flag};
use ocs_lb_tests::plan::{BACKENDS, Plan, SERVICE, SNAT};
use ocs_lb_tests::prog::{World, key};
use ocs_lb_tests::random::Random;
use ocs_lb_tests::repeat::{FRAME, FRAMES, Repeat, median, pin};

/// Flows at once.
const SIZES: [usize; 3] = [1, 1024, FRAMES];
/// Both directions of the most flows.
const ENTRIES: u32 = 131_072;
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
    repeat: Repeat,
    floor_flows: HashMap<MapData, FlowKey<V4>, Flow<V4>>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    pin("packet", arguments.cpu)?;
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
                mtu: 0,
                ifindex: world.net.wan,
                generation: 0,
                tags: Default::default(),
            };
            world.loaded.maps.next_hops.set(u32::from(id), hop, 0)?;
        }
        let mut repeat = Repeat::new()?;
        let flows = repeat.floor.take_map("FLOOR_FLOWS");
        Ok(Self {
            floor_flows: flows.context("FLOOR_FLOWS")?.try_into()?,
            repeat,
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
        self.repeat.prepare(order.into_iter().map(|flow| {
            let [client, backend] = tuples[flow];
            let (source, destination) = if reply {
                (backend.1, backend.0)
            } else {
                client
            };
            let mut frame = Frame::tcp(source, destination, flag::ACK).numbers(1, 1);
            frame.padding = FRAME - 54;
            frame.bytes()
        }))
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
        let target = if name == "ours" {
            load::xdp(&mut self.world.loaded.ebpf)?.fd()?.try_clone()?
        } else {
            self.repeat.program(name)?
        };
        let wan = self.world.net.wan;
        self.repeat
            .run(&target, wan, packets)
            .context(name.to_owned())
    }
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
