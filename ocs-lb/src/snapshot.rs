//! One look at everything an operator may ask for: plain values, filled by the
//! task that owns the maps and rendered by metrics, socket and command line.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{BackendState, ClusterState};

/// Why there is nothing to look at: the owner of the maps is busy or gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unavailable(pub String);

/// The whole of one look.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Attached interfaces.
    pub interfaces: Vec<InterfaceView>,
    /// Interfaces that were attached and whose program or link is gone.
    #[serde(default)]
    pub lost: Vec<String>,
    /// Clusters by id: those of the configuration, and removed ones that have
    /// flows.
    pub clusters: Vec<ClusterView>,
    /// SNAT ports in use, by destination.
    pub snat: Vec<SnatView>,
    /// Maps and their use.
    pub maps: Vec<MapView>,
    /// The last sweep.
    pub sweep: SweepView,
    /// Events of the datapath that found their ring full.
    #[serde(default)]
    pub events_lost: u64,
    /// Resets for killed flows.
    #[serde(default)]
    pub resets: ResetView,
    /// Reloads since the controller started.
    #[serde(default)]
    pub reloads: ReloadView,
}

/// How often the configuration was read again.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ReloadView {
    /// Reloads that were applied.
    pub applied: u64,
    /// Reloads that changed nothing because of an error.
    pub failed: u64,
    /// Whether the last one was applied; the start counts.
    pub last_successful: bool,
    /// Wall clock of the last that was, seconds since 1970.
    pub last_success: f64,
}

/// One attached interface.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Kernel name.
    pub name: String,
    /// `native`, `generic` or `tc`.
    pub mode: String,
    /// Why it is that mode.
    #[serde(default)]
    pub reason: String,
    /// Packets by verdict label, forwarded ones.
    pub forwarded: BTreeMap<String, u64>,
    /// Packets by reason, left to the host.
    pub passed: BTreeMap<String, u64>,
    /// Packets by reason, dropped.
    pub dropped: BTreeMap<String, u64>,
}

/// Whose word a state is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidView {
    /// User and process.
    pub by: String,
    /// RFC 3339, UTC.
    pub at: String,
}

/// One cluster.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClusterView {
    /// Name.
    pub name: String,
    /// The operator's word on it.
    #[serde(default)]
    pub state: ClusterState,
    /// Who said so, and when (RFC 3339), where an operator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<SaidView>,
    /// Flows it may hold.
    pub max_connections: u32,
    /// Established flows, as the datapath counts them.
    pub live: u32,
    /// Half-open flows, as the datapath counts them.
    pub pending: u32,
    /// Flows that are over and whose SNAT port rests.
    #[serde(default)]
    pub resting: u32,
    /// Half-open flows that moved to another backend, by reason.
    #[serde(default)]
    pub redispatches: BTreeMap<String, u64>,
    /// New flows on a port whose rest was not over, where the server's
    /// TIME_WAIT lets the SYN in.
    #[serde(default)]
    pub ports_reused: u64,
    /// New flows whose client had a usable sticky entry.
    pub sticky_hits: u64,
    /// New flows of a sticky cluster whose client had none.
    pub sticky_misses: u64,
    /// New connections refused, by reason.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// Whether it is no longer in the configuration; it is shown while it has
    /// flows.
    #[serde(default)]
    pub removed: bool,
    /// Backends by slot: those of the configuration, and removed ones that have
    /// flows.
    pub backends: Vec<BackendView>,
}

/// One backend.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct BackendView {
    /// Name.
    pub name: String,
    /// Address and, where the file fixes one, port.
    pub address: String,
    /// Serves only while no other is ready.
    pub backup: bool,
    /// `up`, `slow-start`, `drain`, `maint`, `down` or `removed`.
    pub state: String,
    /// Whether the checks say that it serves; true without a check.
    #[serde(default)]
    pub healthy: bool,
    /// HAProxy's status text, such as `UP 2/3`.
    #[serde(default)]
    pub status: String,
    /// Whether it takes new clients now.
    pub ready: bool,
    /// Weight by configuration.
    pub weight: u16,
    /// Weight that the datapath uses now; rounded up while it starts slowly.
    pub effective_weight: u16,
    /// How much of its weight it has while it starts slowly, in percent
    /// (HAProxy's `throttle`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<f64>,
    /// What an operator said of its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_word: Option<BackendState>,
    /// Who said so, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<SaidView>,
    /// What an operator said of its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_word: Option<u16>,
    /// Who said so, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_said: Option<SaidView>,
    /// Established flows, as the datapath counts them.
    pub live: u32,
    /// Half-open flows, as the datapath counts them.
    pub pending: u32,
    /// Flows ever established.
    pub connections: u64,
    /// Bytes client to backend, ended flows only.
    pub bytes_in: u64,
    /// Bytes backend to client, ended flows only.
    pub bytes_out: u64,
    /// Established flows that were reset, by reason: by the server itself, or
    /// by us.
    #[serde(default)]
    pub resets: BTreeMap<String, u64>,
    /// Health checks by result; `ok` or the kind of failure.
    pub checks: BTreeMap<String, u64>,
    /// How long those checks took.
    #[serde(default)]
    pub check_durations: DurationsView,
    /// What the last check said.
    pub last_check: String,
}

impl BackendView {
    /// The weight that the datapath uses now, to the fraction.
    pub fn weight_now(&self) -> f64 {
        let full = f64::from(self.weight_word.unwrap_or(self.weight));
        match (self.throttle, self.effective_weight) {
            (Some(percent), 1..) => full * percent / 100.0,
            (_, weight) => f64::from(weight),
        }
    }
}

/// How many durations fell under each of [`DurationsView::BOUNDS`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DurationsView {
    /// Durations above the bound before and up to this one, in the order of the
    /// bounds.
    pub counts: [u64; DurationsView::BOUNDS.len()],
    /// Durations above the last bound.
    pub above: u64,
    /// Sum of all, in seconds.
    pub sum: f64,
}

impl DurationsView {
    /// Upper bounds in seconds: from a server on the same link to one whose SYN
    /// had to be sent again (1 s, 3 s).
    pub const BOUNDS: [f64; 12] = [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0,
    ];

    /// Counts one duration.
    pub fn observe(&mut self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        self.sum += seconds;
        let mut slots = Self::BOUNDS.iter().zip(&mut self.counts);
        match slots.find(|(bound, _)| seconds <= **bound) {
            Some((_, count)) => *count += 1,
            None => self.above += 1,
        }
    }
}

/// SNAT ports towards one backend and port.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SnatView {
    /// Cluster's name.
    pub cluster: String,
    /// SNAT address.
    pub address: String,
    /// Backend's name.
    pub backend: String,
    /// Port on the backend.
    pub port: u16,
    /// Ports in use, resting ones included.
    pub used: u32,
    /// Of these, ports whose flow is over and which rest.
    #[serde(default)]
    pub resting: u32,
    /// New flows that found no port.
    #[serde(default)]
    pub failures: u64,
    /// Ports in all.
    pub limit: u32,
}

/// One map.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MapView {
    /// Kernel name.
    pub name: String,
    /// Entries in use, where it is known without a walk.
    pub entries: Option<u64>,
    /// Entries at most.
    pub capacity: u64,
    /// Memory it locks, in bytes, as the kernel accounts it.
    pub bytes: u64,
}

/// The last sweep of the flow map.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SweepView {
    /// Wall clock of its end, seconds since 1970.
    pub timestamp: f64,
    /// How long it took, in seconds.
    pub duration: f64,
    /// Entries it saw, both directions.
    pub entries: u64,
    /// Half-open flows.
    pub half_open: u64,
    /// Established flows.
    pub established: u64,
    /// Flows whose entries rest after their end.
    pub resting: u64,
}

/// What became of the resets that the controller sends for killed flows, two a
/// flow. The datapath answers those that were not sent when their side sends.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ResetView {
    /// Handed to the kernel.
    pub sent: u64,
    /// No MAC is known for their next hop.
    pub no_next_hop: u64,
    /// The kernel refused them.
    pub failed: u64,
    /// Flows whose record found the ring full.
    pub untold: u64,
}

/// What came of an operator's reset.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KilledView {
    /// Flows reset.
    pub killed: u64,
    /// Of these, flows whose sides hear of it only when they send.
    pub untold: u64,
    /// Whether that was all; if not, it goes on and the log has the sum.
    pub done: bool,
}

/// One event of the datapath, as `show events` lists it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EventView {
    /// Wall clock, seconds since 1970.
    pub at: f64,
    /// What happened.
    pub kind: String,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Cluster's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Client address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Client port.
    pub client_port: u16,
    /// VIP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip: Option<IpAddr>,
    /// Port on the VIP.
    pub vip_port: u16,
    /// SNAT address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snat: Option<IpAddr>,
    /// SNAT port.
    pub snat_port: u16,
    /// Backend's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<String>,
    /// The backend before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// A neighbour whose MAC is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub neighbor: Option<IpAddr>,
    /// Its interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ifindex: Option<u32>,
    /// Seconds since the first SYN.
    pub age: f64,
    /// Bytes client to backend.
    pub bytes_in: u64,
    /// Bytes backend to client.
    pub bytes_out: u64,
}

/// One flow, as `show flows` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlowView {
    /// Cluster's name.
    pub cluster: String,
    /// Client address.
    pub client: IpAddr,
    /// Client port.
    pub client_port: u16,
    /// VIP.
    pub vip: IpAddr,
    /// Port on the VIP.
    pub vip_port: u16,
    /// SNAT address.
    pub snat: IpAddr,
    /// SNAT port.
    pub snat_port: u16,
    /// Backend's name.
    pub backend: String,
    /// Backend address.
    pub backend_address: IpAddr,
    /// Port on the backend.
    pub backend_port: u16,
    /// `half-open`, `established`, `half-closed`, `closed`, `reset` or `dead`.
    pub state: String,
    /// Seconds since the last packet of either side.
    pub idle: f64,
    /// Bytes client to backend.
    pub bytes_in: u64,
    /// Bytes backend to client.
    pub bytes_out: u64,
    /// Packets client to backend.
    pub packets_in: u32,
    /// Packets backend to client.
    pub packets_out: u32,
}

/// One sticky entry, as `show sticky` lists it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StickyView {
    /// Cluster's name.
    pub cluster: String,
    /// Client address.
    pub client: IpAddr,
    /// Backend's name.
    pub backend: String,
    /// Seconds until it expires; negative where it has.
    pub expires_in: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_under_the_smallest_bound_that_holds_them() {
        let mut durations = DurationsView::default();
        for micros in [1, 500, 501, 5_000_000, 5_000_001] {
            durations.observe(Duration::from_micros(micros));
        }
        assert_eq!(durations.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(durations.above, 1);
        assert!((durations.sum - 10.001003).abs() < 1e-9);
    }
}
