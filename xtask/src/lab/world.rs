//! What the lab consists of.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::client::http_get;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::proc::Process;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::topology::{Arms, SERVERS, Topology};

use super::signals;
use crate::run;

/// The configuration that the balancer embeds.
const CONFIG: &str = include_str!("../../../ocs-lb/src/config/default.yaml");

/// A network, three servers, the balancer between.
pub struct World {
    /// Namespaces and wires.
    pub topology: Topology,
    /// In the order of the configuration; `None` is stopped.
    pub servers: [Option<Server>; 3],
    /// The balancer.
    pub balancer: Process,
    /// Its runtime socket.
    pub socket: PathBuf,
}

impl World {
    /// Starts it all; the balancer is ready when this returns.
    ///
    /// # Errors
    /// What did not start, with its log.
    pub fn start(scratch: &Path) -> anyhow::Result<Self> {
        let topology = Topology::new(Arms::Two)?;
        let mut servers = [None, None, None];
        for (number, server) in servers.iter_mut().enumerate() {
            *server = Some(start_server(&topology, number)?);
        }
        let socket = scratch.join("admin.sock");
        let config = scratch.join("config.yaml");
        let text = format!("{CONFIG}\nadmin:\n  - {{socket: {}}}\n", socket.display());
        std::fs::write(&config, text).context("configuration")?;
        let mut command = topology.lb.command(run::binary());
        command.arg("run").arg("--config").arg(&config);
        let mut balancer = Process::start(command)?;
        signals::balancer(balancer.id());
        let lb = topology.lb.clone();
        balancer
            .wait_until(Duration::from_secs(30), |_| is_ready(&lb))
            .context("the balancer")?;
        Ok(Self {
            topology,
            servers,
            balancer,
            socket,
        })
    }

    /// Stops a server, as the end of its process would.
    ///
    /// # Errors
    /// What ended it before.
    pub fn stop_server(&mut self, number: usize) -> anyhow::Result<()> {
        match self.servers[number].take() {
            Some(mut server) => server.stop(),
            None => Ok(()),
        }
    }

    /// Starts a stopped server again.
    ///
    /// # Errors
    /// Where a port is taken.
    pub fn start_server(&mut self, number: usize) -> anyhow::Result<()> {
        self.servers[number] = Some(start_server(&self.topology, number)?);
        Ok(())
    }
}

fn start_server(topology: &Topology, number: usize) -> anyhow::Result<Server> {
    let (name, address) = SERVERS[number];
    Server::start(&topology.servers[number], name, address, &PORTS)
}

fn is_ready(lb: &Namespace) -> bool {
    let answer = lb.block_on(|| http_get(([127, 0, 0, 1], 7778).into(), "/readyz"));
    answer.is_ok_and(|(status, _)| status == 200)
}
