//! The validated configuration: what the datapath is to do, with every
//! default resolved and every reference checked.
//!
//! Pure values: nothing here knows aya, tokio, a file or a clock.

mod access;
pub mod align;
pub mod attach;
mod backend_word;
pub mod bill;
mod check;
mod cluster_state;
pub mod diff;
pub mod drift;
pub mod edits;
mod failure;
pub mod guard;
pub mod kills;
pub mod lists;
mod names;
pub mod policy;
pub mod pressure;
pub mod ramp;
pub mod show;
pub mod sizes;
pub mod snat;
pub mod standing;
pub mod ways;

pub use access::{Access, NewConnections, Prefix};
pub use backend_word::{BackendSetting, BackendState, BackendWord, MAX_WEIGHT};
#[cfg(test)]
pub(crate) use check::test_check;
pub use check::{Anchors, Check, CheckKind, HttpRequest, SipOptions, Statuses, Tls};
pub use cluster_state::ClusterState;
pub use failure::{DownAction, OnBackendDown, Persist, RemovedAction};

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Most clusters: the datapath's tables of clusters hold this many.
pub const MAX_CLUSTERS: usize = 256;

/// The whole of a valid configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Interfaces the datapath is attached to.
    pub interfaces: Interfaces,
    /// Whether VIPs and SNAT addresses are added to interfaces by the controller.
    pub manage_addresses: bool,
    /// Whether answers leave the way a connection's first packet came: to its
    /// sender's MAC address, by its interface.
    pub auto_last_hop: bool,
    /// Clusters; the index is the cluster's id. In the order of the file, until
    /// a reload keeps the ids of those that were there.
    pub clusters: Vec<Cluster>,
    /// Sizes of the datapath's tables.
    pub tables: Tables,
    /// RSTs a second that answer packets of no flow, over all CPUs.
    pub unknown_resets: u32,
    /// Time between two sweeps of the flow table.
    pub sweep_interval: Duration,
    /// Runtime sockets.
    pub admin: Vec<AdminSocket>,
    /// Where metrics are served; `None` is off.
    pub metrics: Option<SocketAddr>,
    /// The controller's own log.
    pub log: Log,
}

impl Model {
    /// How the program is attached to an interface.
    pub fn mode_of(&self, interface: &str) -> AttachMode {
        match &self.interfaces {
            Interfaces::Auto => AttachMode::Auto,
            Interfaces::Listed(listed) => listed
                .iter()
                .find(|one| one.name == interface)
                .map_or(AttachMode::Auto, |one| one.mode),
        }
    }
}

/// Which interfaces carry served traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interfaces {
    /// Those that carry VIPs, SNAT addresses and routes to backends.
    Auto,
    /// Exactly these.
    Listed(Vec<Interface>),
}

/// One interface by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Kernel name, at most 15 bytes.
    pub name: String,
    /// How the program is attached.
    pub mode: AttachMode,
}

/// How the program is to be attached, as the file says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttachMode {
    /// By what the interfaces can.
    Auto,
    /// XDP in the driver.
    Native,
    /// XDP in the stack, after the socket buffer exists.
    Generic,
    /// At the ingress of traffic control.
    Tc,
}

/// One pool of backends with everything that applies to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Unique name.
    pub name: String,
    /// Virtual addresses.
    pub vips: Vec<Vip>,
    /// Served TCP ports, ascending by `listen`.
    pub ports: Vec<Port>,
    /// Whom it serves and lets in.
    pub access: Access,
    /// How fast it takes new connections.
    pub new_connections: NewConnections,
    /// How a new flow without a sticky entry finds its backend.
    pub balance: Balance,
    /// Source stickiness; `None` is off.
    pub sticky: Option<Sticky>,
    /// Source addresses and ports towards the backends.
    pub snat: Snat,
    /// Flows the cluster may hold at once.
    pub max_connections: u32,
    /// What happens to a new connection that cannot be served.
    pub refuse: Refuse,
    /// What happens to packets for an unserved port of a VIP.
    pub unserved: Unserved,
    /// What happens to non-SYN packets of no known flow.
    pub unknown: Unknown,
    /// What happens to fragments to a VIP.
    pub fragments: Fragments,
    /// When flows end by time.
    pub timeouts: Timeouts,
    /// Age of a try from which a SYN retransmission may move the flow to
    /// another backend.
    pub redispatch_after: Duration,
    /// What a sticky client meets while its backend is unavailable.
    pub persist: Persist,
    /// What becomes of the flows of a backend that goes down.
    pub on_backend_down: OnBackendDown,
    /// What becomes of the flows of a backend that leaves the file.
    pub on_backend_removed: RemovedAction,
    /// Backends; the index is the backend's slot. In the order of the file,
    /// until a reload keeps the slots of those that were there.
    pub backends: Vec<Backend>,
    /// No longer in the file: takes nothing new, its flows live on. Has neither
    /// VIPs nor ports, and all its backends are retired.
    pub retired: bool,
}

/// A virtual address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vip {
    /// The address.
    pub address: IpAddr,
    /// Prefix length where the long form gave one.
    pub prefix: Option<u8>,
    /// Interface where the long form gave one.
    pub interface: Option<String>,
}

/// A served port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Port on the VIP, host order, or [`Port::ANY`].
    pub listen: u16,
    /// Port on the backend, host order; equal to `listen` unless the file maps it.
    pub target: u16,
    /// Who is let in: 0 is the cluster's `allow`, else one more than an index
    /// of [`Access::ports`].
    pub access: u16,
}

impl Port {
    /// Stands for every port that no cluster of the VIP serves by its number.
    pub const ANY: u16 = 0;
    /// Ports of `any` towards each backend that there is room for.
    pub const ANY_USED: usize = 1024;

    /// How the file writes it.
    pub fn name(listen: u16) -> String {
        match listen {
            Self::ANY => "any".to_owned(),
            number => number.to_string(),
        }
    }
}

/// The algorithm of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Fewest flows for its weight.
    LeastConn,
    /// In turn, by weight.
    RoundRobin,
}

/// Source stickiness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sticky {
    /// Entries of the table.
    pub size: u32,
    /// Life of an entry after its last use.
    pub expire: Duration,
}

/// Where the source addresses towards backends come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snat {
    /// The host's own address towards each backend, outside its ephemeral ports.
    Auto,
    /// A pool.
    Pool {
        /// Addresses, at least one.
        addresses: Vec<IpAddr>,
        /// First and last port, both included; never below 1024.
        ports: (u16, u16),
    },
}

/// How one kind of refusal looks to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefuseAction {
    /// Silence: the client retransmits.
    Drop,
    /// A RST.
    Reset,
}

/// What a refused client meets, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refuse {
    /// The cluster is at `max_connections`.
    pub limit: RefuseAction,
    /// No SNAT port is free.
    pub snat: RefuseAction,
    /// The source is not allowed.
    pub deny: RefuseAction,
    /// No backend is ready.
    pub no_backend: RefuseAction,
}

/// Packets to ports of a VIP that no cluster serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unserved {
    /// Pass while the VIP is an address of this host.
    Auto,
    /// To the host's stack.
    Pass,
    /// Answered with a RST.
    Reset,
    /// Dropped.
    Drop,
}

/// Packets of served ports that belong to no flow and open none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// Answered with a RST.
    Reset,
    /// Dropped.
    Drop,
    /// To the host's stack.
    Pass,
}

/// Fragments of TCP packets to a VIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragments {
    /// Dropped.
    Drop,
    /// To the host's stack, where the VIP is not an address of this host;
    /// else dropped.
    Kernel,
}

/// When flows end by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a flow that is not established yet.
    pub connect: Duration,
    /// Idle time of an established flow: the smaller of client and server.
    pub client: Duration,
    /// See `client`.
    pub server: Duration,
    /// Idle time once one side has sent a FIN.
    pub half_closed: Duration,
}

/// One server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// Unique within the cluster.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Target port for every listen port, where the file fixes one.
    pub port: Option<u16>,
    /// 0 to 256; 0 takes sticky clients only.
    pub weight: u16,
    /// Serves only while no other backend is ready.
    pub backup: bool,
    /// How long its weight grows after it was down or in maintenance; zero is
    /// not at all.
    pub slow_start: Duration,
    /// Health check; `None` is always healthy.
    pub check: Option<Check>,
    /// No longer in the file: takes nothing new, its flows live on. Has no check.
    pub retired: bool,
}

/// Sizes of the datapath's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tables {
    /// Live flows; `None` is the sum of the clusters' limits.
    pub flows: Option<u32>,
    /// Half-open flows.
    pub half_open: u32,
}

/// A runtime socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSocket {
    /// Path of the UNIX socket.
    pub path: PathBuf,
    /// File mode.
    pub mode: u32,
}

/// The controller's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// Most detailed level that is written.
    pub level: LogLevel,
}

/// Levels of the controller's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// Duty not done.
    Error,
    /// Degraded, needs looking.
    Warn,
    /// State changes.
    Info,
    /// For developers.
    Debug,
    /// Everything, the datapath's own log included.
    Trace,
}

/// A cluster for tests: one backend a `(weight, backup)`.
#[cfg(test)]
pub(crate) fn test_cluster(backends: &[(u16, bool)]) -> Cluster {
    let second = Duration::from_secs(1);
    Cluster {
        name: "test".into(),
        vips: vec![Vip {
            address: IpAddr::from([192, 0, 2, 1]),
            prefix: None,
            interface: None,
        }],
        ports: vec![Port {
            listen: 5061,
            target: 5061,
            access: 0,
        }],
        access: Access::default(),
        new_connections: NewConnections::default(),
        balance: Balance::LeastConn,
        sticky: None,
        snat: Snat::Auto,
        max_connections: 100,
        refuse: Refuse {
            limit: RefuseAction::Drop,
            snat: RefuseAction::Reset,
            deny: RefuseAction::Drop,
            no_backend: RefuseAction::Reset,
        },
        unserved: Unserved::Auto,
        unknown: Unknown::Reset,
        fragments: Fragments::Drop,
        timeouts: Timeouts {
            connect: second * 4,
            client: second * 1800,
            server: second * 1800,
            half_closed: second * 1800,
        },
        redispatch_after: Duration::from_millis(800),
        persist: Persist::Redispatch,
        on_backend_down: OnBackendDown {
            action: DownAction::Reset,
            rate: 5000,
            guard: true,
        },
        on_backend_removed: RemovedAction::Drain,
        retired: false,
        backends: backends
            .iter()
            .enumerate()
            .map(|(slot, (weight, backup))| Backend {
                name: format!("b{slot}"),
                address: IpAddr::from([198, 51, 100, 10 + slot as u8]),
                port: None,
                weight: *weight,
                backup: *backup,
                slow_start: Duration::ZERO,
                check: None,
                retired: false,
            })
            .collect(),
    }
}
