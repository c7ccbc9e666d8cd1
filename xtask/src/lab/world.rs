//! What the lab consists of.

use std::path::Path;

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::balancer::Balancer;
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
    pub balancer: Balancer,
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
        let mut balancer = Balancer::launch(&topology.lb, &run::binary(), CONFIG, scratch)?;
        signals::balancer(balancer.process.id());
        balancer.wait_ready()?;
        Ok(Self {
            topology,
            servers,
            balancer,
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
