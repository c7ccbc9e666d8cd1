//! The same cases against ocs-lb and HAProxy: where both can do a thing, they
//! do the same.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::client::{Session, connect};
use ocs_lb_test_support::proc::Process;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::topology::{Arms, LB, SERVERS, Topology, client, vip};

use crate::world::{Scratch, binary, config};

/// A network with servers and one of the two balancers.
struct Net {
    who: &'static str,
    topology: Topology,
    servers: Vec<Option<Server>>,
    _process: Box<dyn Send>,
    _scratch: Scratch,
}

/// What both are configured for.
#[derive(Clone, Copy)]
struct Setting {
    weights: [u16; 2],
    sticky: bool,
}

impl Setting {
    fn haproxy(self) -> String {
        let binds: Vec<String> = PORTS
            .iter()
            .map(|port| format!("192.0.2.1:{port}"))
            .collect();
        let stick = if self.sticky {
            "  stick-table type ip size 10k expire 30m\n  stick on src\n"
        } else {
            ""
        };
        let check = "check port 5061 inter 200ms rise 2 fall 3";
        format!(
            "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 4s\n  timeout client 30m\n  \
             timeout server 30m\n  option redispatch\nlisten ocs\n  bind {}\n  balance leastconn\n{stick}  \
             server OCS_Node1 198.51.100.10 weight {} {check}\n  \
             server OCS_Node2 198.51.100.11 weight {} {check}\n  server backup 198.51.100.12 backup\n",
            binds.join(","),
            self.weights[0],
            self.weights[1],
        )
    }

    fn ocs_lb(self) -> String {
        let sticky = if self.sticky { "" } else { "    sticky: off\n" };
        let check = "{port: 5061, interval: 200ms, rise: 2, fall: 3}";
        config(self.weights, &format!("{sticky}    check: {check}"))
    }
}

fn network() -> (Topology, Vec<Option<Server>>) {
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let servers = (0..SERVERS.len())
        .map(|number| Some(start_server(&topology, number)))
        .collect();
    (topology, servers)
}

fn start_server(topology: &Topology, number: usize) -> Server {
    let (name, address) = SERVERS[number];
    Server::start(&topology.servers[number], name, address, &PORTS).expect("a server")
}

fn with_ocs_lb(setting: Setting) -> Net {
    let (topology, servers) = network();
    let scratch = Scratch::new();
    let balancer = Balancer::start(&topology.lb, &binary(), &setting.ocs_lb(), &scratch.0);
    Net {
        who: "ocs-lb",
        topology,
        servers,
        _process: Box::new(balancer.expect("the balancer")),
        _scratch: scratch,
    }
}

fn with_haproxy(setting: Setting) -> Net {
    let (topology, servers) = network();
    let scratch = Scratch::new();
    let path = scratch.0.join("haproxy.cfg");
    std::fs::write(&path, setting.haproxy()).expect("a configuration");
    let mut command = topology.lb.command("haproxy");
    command.arg("-db").arg("-f").arg(&path);
    let process = Process::start(command).expect("HAProxy");
    let net = Net {
        who: "HAProxy",
        topology,
        servers,
        _process: Box::new(process),
        _scratch: scratch,
    };
    net.wait_for(0, &["OCS_Node1", "OCS_Node2"]);
    net
}

/// Runs a case against both. HAProxy is one of the tools that
/// `cargo xtask setup --tools` installs; CI fails without it.
fn both(setting: Setting, case: impl Fn(&mut Net)) {
    case(&mut with_ocs_lb(setting));
    let there = Command::new("haproxy").arg("-v").output().is_ok();
    if there || Path::new("/usr/sbin/haproxy").exists() {
        case(&mut with_haproxy(setting));
    } else {
        println!("SKIPPED for HAProxy, which is missing");
    }
}

impl Net {
    /// Asks a client which server it meets until it is one of these.
    fn wait_for(&self, number: u8, wanted: &[&str]) {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let met = self.server_of(number);
            if met
                .as_ref()
                .is_ok_and(|server| wanted.contains(&server.as_str()))
            {
                return;
            }
            assert!(
                Instant::now() < end,
                "{}: {met:?}, not {wanted:?}",
                self.who
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The server that a client meets.
    fn server_of(&self, number: u8) -> anyhow::Result<String> {
        self.topology.clients.block_on(|| async move {
            let session = connect(client(number), 0, vip(PORTS[0])).await?;
            let server = session.server.clone();
            session.close().await?;
            Ok(server)
        })
    }

    fn hold<T: Send>(&self, count: usize, then: impl Fn(&[Session]) -> T + Send + Sync) -> T {
        self.topology
            .clients
            .block_on(|| async {
                let mut sessions = Vec::new();
                for number in 0..count {
                    let port = PORTS[number % PORTS.len()];
                    sessions.push(connect(client(number as u8), 0, vip(port)).await?);
                }
                Ok(then(&sessions))
            })
            .expect(self.who)
    }
}

const PLAIN: Setting = Setting {
    weights: [1, 1],
    sticky: true,
};

#[test]
#[ignore = "needs root"]
fn one_server_on_all_ports_and_the_balancers_address() {
    both(PLAIN, |net| {
        let met = net
            .topology
            .clients
            .block_on(|| async {
                let mut met = BTreeSet::new();
                for port in PORTS {
                    let mut session = connect(client(3), 0, vip(port)).await?;
                    session.echo(b"hello").await?;
                    met.insert((session.server.clone(), session.seen.ip()));
                    // The late answer after a half-close.
                    session.close().await?;
                }
                Ok(met)
            })
            .expect(net.who);
        assert_eq!(met.len(), 1, "{}: {met:?}", net.who);
        assert!(
            met.iter().all(|(_, seen)| *seen == LB),
            "{}: {met:?}",
            net.who
        );
    });
}

#[test]
#[ignore = "needs root"]
fn leastconn_by_weight() {
    let setting = Setting {
        weights: [1, 3],
        sticky: false,
    };
    both(setting, |net| {
        let first = net.hold(20, |sessions| {
            sessions
                .iter()
                .filter(|session| session.server == "OCS_Node1")
                .count()
        });
        assert_eq!(first, 5, "{}: 20 held connections, weights 1:3", net.who);
    });
}

#[test]
#[ignore = "needs root"]
fn a_stopped_server_the_backup_and_the_way_back() {
    both(PLAIN, |net| {
        net.servers[0]
            .take()
            .expect("it runs")
            .stop()
            .expect("it ran well");
        for number in 0..4 {
            net.wait_for(number, &["OCS_Node2"]);
        }
        net.servers[1]
            .take()
            .expect("it runs")
            .stop()
            .expect("it ran well");
        net.wait_for(0, &["backup"]);
        net.servers[0] = Some(start_server(&net.topology, 0));
        // New clients: with HAProxy whoever met the backup stays there.
        let end = Instant::now() + Duration::from_secs(15);
        let mut number = 100;
        while net.server_of(number).ok().as_deref() != Some("OCS_Node1") {
            assert!(Instant::now() < end, "{}: never back", net.who);
            std::thread::sleep(Duration::from_millis(200));
            number += 1;
        }
    });
}
