//! What every test starts from.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::maps::{MapData, loaded_maps};
use ocs_lb_common::abi::NextHop;
use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::tcp;
use ocs_lb_test_support::topology::{Arms, CLIENTS, SERVERS, Topology, client, vip};
use serde_json::Value;

/// A directory of its own, removed at the end.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ocs-lb-e2e-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).expect("a fresh directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the directory is still there");
    }
}

/// Network, servers, balancer.
pub struct World {
    pub balancer: Balancer,
    pub servers: Vec<Option<Server>>,
    pub topology: Topology,
    _scratch: Scratch,
}

/// The balancer that was built with these tests.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("a path");
    let target = test.ancestors().nth(2).expect("target/PROFILE/deps/test");
    let binary = target.join("ocs-lb");
    assert!(
        binary.exists(),
        "{} is missing: cargo build -p ocs-lb (in the same profile)",
        binary.display()
    );
    binary
}

impl World {
    /// Two arms.
    pub fn new(config: &str) -> Self {
        Self::with(Arms::Two, config)
    }

    pub fn with(arms: Arms, config: &str) -> Self {
        Self::furnished(arms, config, &["--detach-on-exit"])
    }

    /// Two arms, and a datapath that outlives its controller.
    pub fn pinned(config: &str) -> Self {
        Self::furnished(Arms::Two, config, &[])
    }

    fn furnished(arms: Arms, config: &str, arguments: &[&str]) -> Self {
        let topology = Topology::new(arms).expect("namespaces");
        for namespace in &topology.servers {
            let set = namespace.run(|| tcp::sysctl("tcp_syncookies", "1"));
            set.expect("namespace").expect("the sysctl");
        }
        let servers = (0..SERVERS.len())
            .map(|number| Some(start_server(&topology, number)))
            .collect();
        let scratch = Scratch::new();
        let mut balancer =
            Balancer::launch_with(&topology.lb, &binary(), config, &scratch.0, arguments)
                .expect("the balancer starts");
        balancer.wait_ready().expect("the balancer is ready");
        Self {
            balancer,
            servers,
            topology,
            _scratch: scratch,
        }
    }

    pub fn stop_server(&mut self, number: usize) {
        let server = self.servers[number].take();
        server.expect("it runs").stop().expect("it ran well");
    }

    pub fn start_server(&mut self, number: usize) {
        self.servers[number] = Some(start_server(&self.topology, number));
    }

    /// `(live, pending)` of the first cluster, then `live` of each backend.
    pub fn counts(&self) -> (u64, u64, Vec<u64>) {
        let clusters = self.balancer.show("backends").expect("show backends");
        let cluster = &clusters["clusters"][0];
        let live = |value: &Value| value["live"].as_u64().expect("a count");
        let backends = cluster["backends"].as_array().expect("backends");
        (
            live(cluster),
            cluster["pending"].as_u64().expect("a count"),
            backends.iter().map(live).collect(),
        )
    }

    /// Flows of the map that are live, by backend name: counted one by one.
    pub fn recount(&self) -> std::collections::BTreeMap<String, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for flow in self.flows() {
            let state = flow["state"].as_str().expect("a state");
            if ["half-open", "established", "half-closed"].contains(&state) {
                let backend = flow["backend"].as_str().expect("a name").to_owned();
                *counts.entry(backend).or_default() += 1;
            }
        }
        counts
    }

    /// Every entry of `show flows`.
    pub fn flows(&self) -> Vec<Value> {
        let flows = self.balancer.show("flows").expect("show flows");
        flows.as_array().expect("a list").clone()
    }

    /// Entries of the flow table, both directions, read beside the balancer,
    /// which may be stopped.
    pub fn flow_entries(&self) -> usize {
        use aya::maps::{HashMap, Map};
        use ocs_lb_common::abi::{Flow, FlowKey};
        use ocs_lb_common::address::V4;

        let data = self.map("FLOWS4");
        let map: HashMap<_, FlowKey<V4>, Flow<V4>> =
            Map::HashMap(data).try_into().expect("its types");
        map.keys().filter(Result::is_ok).count()
    }

    /// Next hops that are in use.
    pub fn next_hops(&self) -> Vec<NextHop> {
        use aya::maps::{Array, Map};

        let map: Array<_, NextHop> = Map::Array(self.map("NEXT_HOPS"))
            .try_into()
            .expect("its types");
        map.iter()
            .map(|hop| hop.expect("it is there"))
            .filter(|hop| hop.ifindex != 0)
            .collect()
    }

    /// A map of the balancer.
    fn map(&self, name: &str) -> MapData {
        let held = map_ids(self.balancer.process.id());
        let map = loaded_maps()
            .filter_map(Result::ok)
            .find(|map| map.name_as_str() == Some(name) && held.contains(&map.id()))
            .expect("a map of the balancer");
        MapData::from_id(map.id()).expect("it is there")
    }

    /// Resident memory of the controller, in bytes.
    pub fn memory(&self) -> f64 {
        self.metric("process_resident_memory_bytes", "")
    }

    /// Sum of a metric over all of its labels that contain `having`.
    pub fn metric(&self, name: &str, having: &str) -> f64 {
        let text = self.balancer.metrics().expect("metrics");
        text.lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
            })
            .filter(|line| line.contains(having))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// Ids of the maps that a process holds.
fn map_ids(process: u32) -> Vec<u32> {
    let files = std::fs::read_dir(format!("/proc/{process}/fdinfo")).expect("it runs");
    files
        .filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok())
        .filter_map(|text| {
            let line = text.lines().find(|line| line.starts_with("map_id:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .collect()
}

fn start_server(topology: &Topology, number: usize) -> Server {
    let (name, address) = SERVERS[number];
    Server::start(&topology.servers[number], name, address, &PORTS).expect("a server")
}

/// All client addresses.
pub fn clients() -> Vec<Ipv4Addr> {
    (0..CLIENTS).map(client).collect()
}

/// All served ports.
pub fn vips() -> Vec<SocketAddr> {
    PORTS.map(vip).to_vec()
}

/// A configuration: the seed's ports and servers, with what a test needs
/// appended to its cluster (indented by four spaces) and its own weights.
pub fn config(weights: [u16; 2], cluster: &str) -> String {
    let ports = PORTS.map(|port| port.to_string()).join(", ");
    format!(
        "version: 1
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [{ports}]
    slow_start: 0s
    on_backend_down: {{action: keep}}
    backends:
      - {{name: OCS_Node1, address: 198.51.100.10, weight: {}}}
      - {{name: OCS_Node2, address: 198.51.100.11, weight: {}}}
      - {{name: backup, address: 198.51.100.12, backup: true, check: off}}
{cluster}
",
        weights[0], weights[1]
    )
}
