//! The loaded programs over a [`Plan`]'s maps, run frame by frame through
//! `BPF_PROG_TEST_RUN`.

mod program;
mod walks;

use std::collections::HashMap;

use anyhow::{Context as _, Result, ensure};
use ocs_lb::datapath::lists;
use ocs_lb::datapath::load::{Clock, Loaded, load, load_at};
use ocs_lb::datapath::record::read;
use ocs_lb::datapath::sweep;
use ocs_lb::model::LogLevel;
use ocs_lb::model::sizes::Sizes;
use ocs_lb_common::abi::{
    ClusterLoad, Event, Flow, FlowKey, INTERFACE_SLOTS, LinkInfo, NextHopKey, Pending, PortMap,
    SnatKey, StickyKey, StickyValue, backend_index,
};
use ocs_lb_common::address::{Be16, V4};
use ocs_lb_common::sweep::Report;
use ocs_lb_common::verdict::{SLOTS, Verdict};

pub use program::Program;

use crate::invariant;
use crate::net::{self, Net};
use crate::packet::End;
use crate::plan::{BACKENDS, FIRST_HOP, Plan};

/// Index of the ring's cursor in `CURSORS`.
const CURSOR_HALF_OPEN: u32 = 2;
/// Index of the cursor of flows that came to rest.
pub const CURSOR_RESTING: u32 = 3;
/// Index of the cursor of these that no longer count.
pub const CURSOR_RECLAIMED: u32 = 4;

/// An `xdp_action` (`include/uapi/linux/bpf.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The program failed.
    Aborted,
    /// Gone.
    Drop,
    /// To the host's stack.
    Pass,
    /// Out of the interface it came in.
    Tx,
    /// Out of another interface.
    Redirect,
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What the kernel is to do.
    pub action: Action,
    /// What was counted; exactly one.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub bytes: Vec<u8>,
}

/// A loaded datapath in a namespace of its own.
pub struct World {
    /// Programs and maps.
    pub loaded: Loaded,
    /// Interfaces.
    pub net: Net,
    /// The one that frames run through.
    pub program: Program,
    counted: HashMap<(u32, Verdict), u64>,
}

/// What `load` wants to know of sizes.
pub fn sizes(plan: &Plan) -> Sizes {
    Sizes {
        flows: plan.flows,
        sticky: vec![65_536],
        services: 1024,
        addresses: 1024,
        port_maps: plan.settings.port_maps,
        // A map has at least one entry.
        half_open: plan.settings.half_open.max(1),
        shortest_timeout: None,
    }
}

/// Loads the programs with maps of a plan's sizes.
///
/// # Errors
/// The kernel's.
pub fn load_plan(plan: &Plan) -> Result<Loaded> {
    Ok(load(&sizes(plan), LogLevel::Info)?)
}

impl World {
    /// Loads and fills, as the controller would.
    ///
    /// # Errors
    /// The kernel's; without root at the first step.
    pub fn new(plan: &Plan) -> Result<Self> {
        Self::at(plan, Clock::Kernel)
    }

    /// The same with a clock of choice; see [`World::set_time`].
    ///
    /// # Errors
    /// As [`World::new`].
    pub fn at(plan: &Plan, clock: Clock) -> Result<Self> {
        let net = net::enter()?;
        let mut world = Self {
            loaded: load_at(&sizes(plan), LogLevel::Info, clock)?,
            net,
            program: Program::of_run(),
            counted: HashMap::new(),
        };
        world.fill(plan).context("filling the maps")?;
        Ok(world)
    }

    /// Sets the time that the programs read from now on, in nanoseconds.
    ///
    /// # Errors
    /// The map's.
    pub fn set_time(&mut self, ns: u64) -> Result<()> {
        Ok(self.loaded.maps.test_clock.set(0, ns, 0)?)
    }

    fn fill(&mut self, plan: &Plan) -> Result<()> {
        let maps = &mut self.loaded.maps;
        for (address, flags) in plan.addresses() {
            maps.addresses.insert(address, flags, 0)?;
        }
        for (at, list) in plan.lists.iter().enumerate() {
            lists::write(&mut maps.lists, at as u16 + 1, list)?;
        }
        for (key, service) in plan.services() {
            maps.services.insert(key, service, 0)?;
        }
        for (slot, backend) in plan.backends().into_iter().enumerate() {
            maps.backends
                .set(backend_index(0, slot as u16), backend, 0)?;
        }
        for (slot, hop) in plan.next_hops(self.net).into_iter().enumerate() {
            let id = u32::from(FIRST_HOP) + slot as u32;
            maps.next_hops.set(id, hop, 0)?;
            let key = NextHopKey {
                ifindex: self.net.lan,
                address: V4(BACKENDS[slot]),
            };
            maps.next_hop_ids.insert(key, id, 0)?;
        }
        maps.clusters.set(0, plan.cluster, 0)?;
        for (slot, ifindex) in [self.net.wan, self.net.lan].into_iter().enumerate() {
            maps.interfaces.set(ifindex, slot as u32 + 1, 0)?;
            if plan.redirects {
                maps.devices.insert(ifindex, ifindex, None, 0)?;
            }
        }
        for (ifindex, mtu) in [(self.net.wan, plan.mtus.0), (self.net.lan, plan.mtus.1)] {
            let link = LinkInfo {
                send_on: ifindex,
                mtu,
                ..LinkInfo::default()
            };
            maps.links.insert(ifindex, link, 0)?;
        }
        maps.settings.set(0, plan.settings, 0)?;
        Ok(())
    }

    /// Runs the program on a frame that comes in on an interface.
    ///
    /// # Errors
    /// The kernel's, or when not exactly one verdict was counted.
    pub fn run(&mut self, ifindex: u32, frame: &[u8]) -> Result<Outcome> {
        let (action, bytes) = self.run_uncounted(ifindex, frame)?;
        let slot = self.slot(ifindex);
        let found = self.counted(slot)?;
        let [(verdict, 1)] = found[..] else {
            anyhow::bail!("counted {found:?} for one frame");
        };
        Ok(Outcome {
            action,
            verdict,
            bytes,
        })
    }

    /// Index of an interface's counters.
    pub const fn slot(&self, ifindex: u32) -> u32 {
        if ifindex == self.net.wan { 0 } else { 1 }
    }

    /// What was counted on an interface's slot since the last call, in the
    /// order of the verdicts.
    ///
    /// # Errors
    /// The map's.
    pub fn counted(&mut self, slot: u32) -> Result<Vec<(Verdict, u64)>> {
        let mut found = Vec::new();
        for verdict in Verdict::ALL {
            let now = self.counter(slot, *verdict)?;
            let before = self.counted.insert((slot, *verdict), now).unwrap_or(0);
            if now != before {
                found.push((*verdict, now.wrapping_sub(before)));
            }
        }
        Ok(found)
    }

    /// The same without a look at the counters: what the program returned, and
    /// the frame afterwards.
    ///
    /// # Errors
    /// The kernel's, or where the frame is not what every frame must be
    /// ([`invariant::check`]).
    pub fn run_uncounted(&mut self, ifindex: u32, frame: &[u8]) -> Result<(Action, Vec<u8>)> {
        let (action, bytes) = self
            .program
            .run(&mut self.loaded, &self.net, ifindex, frame)?;
        invariant::check(self.program, frame, action, &bytes).map_err(anyhow::Error::msg)?;
        Ok((action, bytes))
    }

    /// Empties what packets fill: flows, ports, counts, sticky clients.
    ///
    /// # Errors
    /// A map's.
    pub fn forget(&mut self) -> Result<()> {
        // A full ring changes how long a port rests.
        self.kills();
        let maps = &mut self.loaded.maps;
        let keys: Vec<_> = maps.flows.keys().collect::<std::result::Result<_, _>>()?;
        for key in keys {
            maps.flows.remove(&key)?;
        }
        for table in [&mut maps.sticky[0], &mut maps.pending_sticky] {
            let keys: Vec<_> = table.keys().collect::<std::result::Result<_, _>>()?;
            for key in keys {
                table.remove(&key)?;
            }
        }
        let ports: Vec<u32> = maps
            .destinations
            .iter()
            .map(|entry| entry.map(|(_, index)| index))
            .collect::<std::result::Result<_, _>>()?;
        for index in ports {
            maps.port_maps.set(index, PortMap::EMPTY, 0)?;
        }
        maps.loads.set(0, ClusterLoad::ZERO, 0)?;
        let sources: Vec<_> = maps.sources.keys().collect::<std::result::Result<_, _>>()?;
        for source in sources {
            maps.sources.remove(&source)?;
        }
        for cursor in [CURSOR_HALF_OPEN, CURSOR_RESTING, CURSOR_RECLAIMED] {
            maps.cursors.set(cursor, 0, 0)?;
        }
        for at in 0..maps.settings.get(&0, 0)?.half_open {
            let place = Pending {
                born: 0,
                ..maps.half_open.get(&at, 0)?
            };
            let nobody = Pending {
                key: FlowKey::default(),
                ..place
            };
            maps.half_open.set(at, nobody, 0)?;
        }
        Ok(())
    }

    /// Frames counted on an interface's slot, over all CPUs.
    ///
    /// # Errors
    /// The map's.
    pub fn counter(&self, slot: u32, verdict: Verdict) -> Result<u64> {
        let index = (slot % INTERFACE_SLOTS) * SLOTS + verdict as u32;
        Ok(self.loaded.maps.counters.get(&index, 0)?.iter().sum())
    }

    /// Runs the sweep once.
    ///
    /// # Errors
    /// The kernel's.
    pub fn sweep(&mut self) -> Result<Report> {
        Ok(sweep::run(&mut self.loaded)?.0)
    }

    /// Counts of the cluster.
    ///
    /// # Errors
    /// The map's.
    pub fn load(&self) -> Result<ClusterLoad> {
        Ok(self.loaded.maps.loads.get(&0, 0)?)
    }

    /// Half-open and live flows of the cluster, after a check that the sum
    /// over the backends is the same.
    ///
    /// # Errors
    /// The map's, or where the sums differ.
    pub fn held(&self) -> Result<(u32, u32)> {
        let load = self.load()?;
        let pending: u32 = load.slots.iter().map(|slot| slot.pending).sum();
        let live: u32 = load.slots.iter().map(|slot| slot.live).sum();
        ensure!(
            (load.pending, load.live) == (pending, live),
            "the cluster counts ({}, {}), its backends ({pending}, {live})",
            load.pending,
            load.live
        );
        Ok((pending, live))
    }

    /// Every entry of the flow map.
    ///
    /// # Errors
    /// The map's.
    pub fn flows(&self) -> Result<HashMap<FlowKey<V4>, Flow<V4>>> {
        Ok(self
            .loaded
            .maps
            .flows
            .iter()
            .collect::<std::result::Result<_, _>>()?)
    }

    /// The entry of a packet from `source` to `destination`.
    pub fn flow(&self, source: End, destination: End) -> Option<Flow<V4>> {
        self.loaded
            .maps
            .flows
            .get(&key(source, destination), 0)
            .ok()
    }

    /// The SNAT ports towards a backend, where any was ever used.
    ///
    /// # Errors
    /// The map's.
    pub fn port_map(&self, snat: [u8; 4], backend: End) -> Result<PortMap> {
        let key = SnatKey {
            snat: V4(snat),
            backend: V4(backend.0),
            port: Be16::new(backend.1),
            proto: 6,
            pad: 0,
        };
        let index = self.loaded.maps.destinations.get(&key, 0)?;
        Ok(self.loaded.maps.port_maps.get(&index, 0)?)
    }

    /// The sticky entry of a client.
    pub fn sticky(&self, client: [u8; 4]) -> Option<StickyValue> {
        let key = StickyKey {
            address: V4(client),
            cluster: 0,
            pad: 0,
        };
        self.loaded.maps.sticky[0].get(&key, 0).ok()
    }

    /// The next event from the programs.
    pub fn event(&mut self) -> Option<Event<V4>> {
        read(&self.loaded.events.as_mut()?.next()?)
    }
}

/// The key of a packet.
pub fn key(source: End, destination: End) -> FlowKey<V4> {
    FlowKey::tcp(
        V4(source.0),
        Be16::new(source.1),
        V4(destination.0),
        Be16::new(destination.1),
    )
}
