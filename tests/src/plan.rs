//! A small world as a controller would describe it, for the loaded programs
//! and for the host's model alike: one cluster, one VIP, two backends.

use ocs_lb_common::abi::{
    AddressFlags, Backend, Cluster, NextHop, SNAT_ADDRESSES, Service, ServiceKey, Settings, Slot,
};
use ocs_lb_common::access::Cell;
use ocs_lb_common::address::{Be16, V4};
use ocs_lb_common::select::stride;
use ocs_lb_common::ticks::duration;

use crate::net::{LAN_MAC, Net, backend_mac};
use crate::packet::End;
use std::time::Duration;

/// The VIP.
pub const VIP: [u8; 4] = [192, 0, 2, 1];
/// The address backends see.
pub const SNAT: [u8; 4] = [198, 51, 100, 1];
/// Addresses of the backends.
pub const BACKENDS: [[u8; 4]; 2] = [[198, 51, 100, 11], [198, 51, 100, 12]];
/// A client behind the gateway.
pub const CLIENT: End = ([203, 0, 113, 7], 40_000);
/// What most tests dial.
pub const SERVICE: End = (VIP, 5061);
/// First SNAT port.
pub const LOW: u16 = 20_000;
/// Index of the next hop to the first backend; the second's is one more.
pub const FIRST_HOP: u16 = 1;

/// Everything a test may vary.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Policy, with its slots.
    pub cluster: Cluster,
    /// Served ports of the VIP and their targets.
    pub ports: Vec<(u16, u16)>,
    /// The list of sources of these ports; 0 is none.
    pub access: u16,
    /// Further services.
    pub services: Vec<(ServiceKey<V4>, Service)>,
    /// Lists of sources; the first has the number 1.
    pub lists: Vec<Vec<Cell<V4>>>,
    /// Whether the VIP serves any port.
    pub any: bool,
    /// Unserved ports of the VIP, an [`Unserved`](ocs_lb_common::abi::Unserved).
    pub unserved: u8,
    /// Whether the VIP and the SNAT address are the host's.
    pub local: bool,
    /// Whether fragments to the VIP are the host's: `fragments: kernel`.
    pub fragments: bool,
    /// The source towards backends.
    pub snat: [u8; 4],
    /// SNAT ports.
    pub range: (u16, u16),
    /// Whether the way to the backends is known.
    pub hops_valid: bool,
    /// MTUs of the ways out: towards clients, and towards backends; 0 is not
    /// known.
    pub mtus: (u16, u16),
    /// Whether `lan0` takes redirected packets.
    pub redirects: bool,
    /// What every program is told.
    pub settings: Settings,
    /// Entries of the flow map, two a flow.
    pub flows: u32,
}

impl Default for Plan {
    fn default() -> Self {
        let minutes = duration(Duration::from_secs(1800));
        let mut cluster = Cluster {
            backends: 2,
            sticky: 1,
            max_connections: 100_000,
            sticky_expire: minutes,
            connect_timeout: duration(Duration::from_secs(4)),
            idle_timeout: minutes,
            half_closed_timeout: minutes,
            redispatch_after: duration(Duration::from_millis(800)),
            resting: 8192,
            ..Cluster::default()
        };
        for slot in &mut cluster.slots[..2] {
            *slot = Slot {
                weight: 1,
                flags: Slot::STICKY,
            };
        }
        let mut plan = Self {
            cluster,
            ports: vec![(5061, 5061), (443, 4443)],
            access: 0,
            services: Vec::new(),
            lists: Vec::new(),
            any: false,
            unserved: 0,
            local: true,
            fragments: false,
            snat: SNAT,
            range: (LOW, LOW + 9_999),
            hops_valid: true,
            mtus: (0, 0),
            redirects: true,
            settings: Settings {
                resets_per_cpu: 1_000_000,
                port_maps: 64,
                half_open: 4096,
                events: u32::MAX,
                auto_last_hop: 0,
            },
            flows: 65_536,
        };
        plan.reweigh();
        plan
    }
}

impl Plan {
    /// Brings what is derived from the weights up to date.
    pub fn reweigh(&mut self) {
        let weights = self.cluster.slots.iter().map(|slot| u32::from(slot.weight));
        self.cluster.total_weight = weights.sum();
        self.cluster.stride = stride(self.cluster.total_weight);
    }

    /// Our addresses and what they are for.
    pub fn addresses(&self) -> Vec<(V4, AddressFlags)> {
        let host = if self.local { AddressFlags::HOST } else { 0 };
        let flags = |bits, unserved| AddressFlags {
            bits: bits | host,
            unserved,
            pad: 0,
        };
        let mut vip = AddressFlags::VIP;
        if self.fragments {
            vip |= AddressFlags::FRAGMENTS;
        }
        if self.any {
            vip |= AddressFlags::ANY;
        }
        if self.snat == VIP {
            let both = vip | AddressFlags::SNAT;
            return vec![(V4(VIP), flags(both, self.unserved))];
        }
        vec![
            (V4(VIP), flags(vip, self.unserved)),
            (V4(self.snat), flags(AddressFlags::SNAT, 0)),
        ]
    }

    /// Served ports.
    pub fn services(&self) -> Vec<(ServiceKey<V4>, Service)> {
        let service = |(listen, target): &(u16, u16)| {
            (
                ServiceKey::tcp(V4(VIP), Be16::new(*listen)),
                Service {
                    access: self.access,
                    ..Service::of(0, Be16::new(*target))
                },
            )
        };
        let ports = self.ports.iter().map(service);
        ports.chain(self.services.iter().copied()).collect()
    }

    /// The backends, by slot.
    pub fn backends(&self) -> Vec<Backend<V4>> {
        let mut snat = [V4::default(); SNAT_ADDRESSES];
        snat[0] = V4(self.snat);
        let backend = |(slot, address): (usize, &[u8; 4])| Backend {
            address: V4(*address),
            port: Be16::default(),
            next_hop: FIRST_HOP + slot as u16,
            port_low: self.range.0,
            port_high: self.range.1,
            snat_len: 1,
            pad: 0,
            snat,
        };
        BACKENDS.iter().enumerate().map(backend).collect()
    }

    /// The next hops to the backends, by slot.
    pub fn next_hops(&self, net: Net) -> Vec<NextHop> {
        let hop = |address: &[u8; 4]| NextHop {
            destination: backend_mac(address[3]),
            valid: u16::from(self.hops_valid),
            source: LAN_MAC,
            mtu: self.mtus.1,
            ifindex: net.lan,
            generation: 0,
            tags: Default::default(),
        };
        BACKENDS.iter().map(hop).collect()
    }
}
