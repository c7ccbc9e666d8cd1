//! Nanoseconds to open a flow while few, half or nearly all of the SNAT ports
//! towards its server are in use.
//!
//! Ports are marked in use at random; then SYNs of clients without a sticky
//! entry come in, each of which takes a port. The whole way of such a packet is
//! timed, the allocation with it. Fails where one at 99 % costs more than twice
//! one at 10 %.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Parser as _;
use ocs_lb::datapath::load;
use ocs_lb_common::abi::{NextHop, PortMap, SnatKey};
use ocs_lb_common::address::{Be16, V4};
use ocs_lb_tests::net::{GATEWAY_MAC, WAN_MAC, backend_mac};
use ocs_lb_tests::packet::{Frame, flag};
use ocs_lb_tests::plan::{BACKENDS, FIRST_HOP, Plan, SERVICE, SNAT};
use ocs_lb_tests::prog::World;
use ocs_lb_tests::random::Random;
use ocs_lb_tests::repeat::{FRAME, Repeat, median, pin};

/// Ports of the range.
const RANGE: (u16, u16) = (1024, 65_535);
/// Percent in use before the first packet.
const USED: [usize; 3] = [10, 50, 99];
/// Flows opened in one measurement: 0.4 % of the ports.
const FLOWS: u32 = 256;
/// What the search may cost at the last share, in times of the first.
const MOST: f64 = 2.0;

#[derive(clap::Parser)]
#[command(about = "Nanoseconds to open a flow by share of SNAT ports in use")]
struct Arguments {
    /// Write the figures to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Measurements of each figure; the median counts.
    #[arg(long, default_value_t = 101)]
    rounds: usize,
    /// CPU to run on.
    #[arg(long, default_value_t = 0)]
    cpu: usize,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    pin("alloc", arguments.cpu)?;
    let mut bench = Bench::new()?;
    let mut samples = [const { Vec::new() }; 1 + USED.len()];
    for round in 0..arguments.rounds {
        samples[0].push(bench.empty()?);
        for (samples, used) in samples[1..].iter_mut().zip(USED) {
            samples.push(bench.open(used, round as u64)?);
        }
    }
    let [empty, opened @ ..] = samples.map(median);
    let ns = opened.map(|ns| ns - empty);
    println!("ports in use   ns to open a flow   times the first");
    for (used, ns) in USED.iter().zip(ns) {
        println!("{used:10} % {ns:19.0} {:17.2}", ns / (opened[0] - empty));
    }
    println!(
        "net of an empty program; {} ports, medians of {}",
        ports().count(),
        arguments.rounds
    );
    if let Some(path) = &arguments.json {
        std::fs::write(path, json(&ns, &arguments)).context("writing the figures")?;
    }
    let ratio = ns[USED.len() - 1] / ns[0];
    ensure!(
        ratio <= MOST,
        "a flow costs {ratio:.2} times as much where {} % are in use",
        USED[USED.len() - 1]
    );
    Ok(())
}

fn ports() -> impl Iterator<Item = u16> {
    RANGE.0..=RANGE.1
}

struct Bench {
    world: World,
    repeat: Repeat,
    /// The slab's index of the ports towards the server.
    index: u32,
}

impl Bench {
    fn new() -> Result<Self> {
        let mut plan = Plan {
            range: RANGE,
            ..Plan::default()
        };
        plan.cluster.slots[1].weight = 0;
        plan.reweigh();
        let mut world = World::new(&plan)?;
        // One arm: whatever comes in goes out there, so that all programs end
        // with XDP_TX.
        let hop = NextHop {
            destination: backend_mac(BACKENDS[0][3]),
            valid: 1,
            source: WAN_MAC,
            mtu: 0,
            ifindex: world.net.wan,
            generation: 0,
            tags: Default::default(),
        };
        let maps = &mut world.loaded.maps;
        maps.next_hops.set(u32::from(FIRST_HOP), hop, 0)?;
        let towards = SnatKey {
            snat: V4(SNAT),
            backend: V4(BACKENDS[0]),
            port: Be16::new(SERVICE.1),
            proto: 6,
            pad: 0,
        };
        maps.destinations.insert(towards, 0, 0)?;
        maps.cursors.set(0, 1, 0)?;
        let mut repeat = Repeat::new()?;
        repeat.prepare((0..FLOWS).map(|n| {
            let client = ([203, 0, 113, 1 + (n % 250) as u8], 1024 + n as u16);
            let mut frame = Frame::tcp(client, SERVICE, flag::SYN).numbers(n << 16, 0);
            frame.mac_source = GATEWAY_MAC;
            frame.padding = FRAME - 54;
            frame.bytes()
        }))?;
        Ok(Self {
            world,
            repeat,
            index: 0,
        })
    }

    fn empty(&mut self) -> Result<f64> {
        let target = self.repeat.program("empty")?;
        self.repeat.run(&target, self.world.net.wan, FLOWS)
    }

    /// Opens flows while so many percent of the ports are in use.
    fn open(&mut self, percent: usize, seed: u64) -> Result<f64> {
        self.world.forget()?;
        let map = used(percent, seed);
        let before = map.used;
        self.world.loaded.maps.port_maps.set(self.index, map, 0)?;
        let target = load::xdp(&mut self.world.loaded.ebpf)?.fd()?.try_clone()?;
        let ns = self.repeat.run(&target, self.world.net.wan, FLOWS)?;
        let after = self.world.loaded.maps.port_maps.get(&self.index, 0)?.used;
        ensure!(
            after == before + FLOWS,
            "{} ports taken by {FLOWS} flows at {percent} %",
            after - before
        );
        ensure!(
            self.world.held()? == (FLOWS, 0),
            "not every flow is counted"
        );
        Ok(ns)
    }
}

/// A bitmap with so many percent of the range in use, anywhere in it.
fn used(percent: usize, seed: u64) -> PortMap {
    let mut random = Random::new(seed);
    let mut ports: Vec<u16> = ports().collect();
    random.shuffle(&mut ports);
    let count = ports.len() * percent / 100;
    let mut map = PortMap::EMPTY;
    for port in ports.into_iter().take(count) {
        let leaf = usize::from(port >> 6);
        map.leaves[leaf] |= 1 << (port & 63);
        if map.leaves[leaf] == u64::MAX {
            map.full[leaf >> 6] |= 1 << (leaf & 63);
        }
    }
    for (word, full) in map.full.iter().enumerate() {
        map.top |= u64::from(*full == u64::MAX) << word;
    }
    map.used = count as u32;
    map.cursor = u32::from(RANGE.0) + random.below(usize::from(RANGE.1 - RANGE.0)) as u32;
    map
}

fn json(ns: &[f64], arguments: &Arguments) -> String {
    let rows: Vec<_> = USED
        .iter()
        .zip(ns)
        .map(|(used, ns)| serde_json::json!({"used_percent": used, "ns": ns}))
        .collect();
    let report = serde_json::json!({
        "flows": FLOWS,
        "rounds": arguments.rounds,
        "cases": rows,
    });
    format!("{report:#}\n")
}
