//! The way from a HAProxy on the same VIP, and back to it, under load.

use std::time::Duration;

use nix::sys::signal::Signal;
use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::proc::Process;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::topology::{Arms, SERVERS, Topology, client, vip};

use crate::load::{Load, Met};
use crate::peers::has;
use crate::world::{Scratch, binary, config};

/// Connections held on each of the two.
const HELD: usize = 100;
/// Time on each leg of the way.
const LEG: Duration = Duration::from_millis(800);

/// HAProxy on port 443 of the VIP; it serves when this returns.
fn haproxy(lb: &Namespace, scratch: &Scratch) -> Process {
    let path = scratch.0.join("haproxy.cfg");
    let servers: String = SERVERS[..2]
        .iter()
        .map(|(name, address)| format!("  server {name} {address}:443\n"))
        .collect();
    let text = format!(
        "defaults
  mode tcp
  timeout connect 4s
  timeout client 30m
  timeout server 30m
listen ocs
  bind 192.0.2.1:443
  balance leastconn
{servers}"
    );
    std::fs::write(&path, text).expect("a configuration");
    let mut command = lb.command("haproxy");
    command.arg("-db").arg("-f").arg(&path);
    let mut process = Process::start(command).expect("HAProxy");
    let listens = |_: &Process| {
        let listing = lb.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"));
        // The VIP, port 443, listening.
        let text = listing.expect("namespace").expect("the sockets");
        text.contains("010200C0:01BB 00000000:0000 0A")
    };
    process
        .wait_until(Duration::from_secs(5), listens)
        .expect("HAProxy listens");
    process
}

fn whole(met: &Met, what: &str) {
    assert!(met.failed.is_empty(), "{what}: {:?}", met.failed);
    assert!(met.opened > 0 && met.echoes > 0, "{what}");
}

/// Where a new connection's source address is seen by the server: the
/// datapath's ports lie outside the host's own.
fn is_ours(topology: &Topology) -> bool {
    let session = topology
        .clients
        .block_on(|| connect(client(7), 0, vip(443)))
        .expect("a connection");
    !(32_768..=60_999).contains(&session.seen.port())
}

/// In and back so many times.
fn there_and_back(times: usize) {
    if !has("haproxy") {
        return;
    }
    let topology = Topology::new(Arms::Two).expect("namespaces");
    let _servers: Vec<_> = SERVERS[..2]
        .iter()
        .zip(&topology.servers)
        .map(|((name, address), namespace)| {
            Server::start(namespace, name, *address, &[443]).expect("a server")
        })
        .collect();
    let scratch = Scratch::new();
    let clients = &topology.clients;
    let text = config([1, 1], "    check: {port: 443, interval: 500ms}");
    let text = text.replace("5060, 5061, 135, 443,", "443,");
    let mut old = haproxy(&topology.lb, &scratch);
    for time in 1..=times {
        let before = Load::start(clients, 443, HELD);
        assert!(!is_ours(&topology), "HAProxy serves");

        let arguments = ["--take-over"];
        let mut balancer =
            Balancer::launch_with(&topology.lb, &binary(), &text, &scratch.0, &arguments)
                .expect("starts");
        balancer.wait_ready().expect("ready");
        if time > 1 {
            // The word of the last way back holds until there is another.
            assert!(!is_ours(&topology), "{time}: HAProxy still serves");
            let set = ["set", "cluster", "ocs", "state", "ready"];
            let said = balancer.client(&set).expect("it runs");
            assert!(said.status.success(), "{said:?}");
        }
        assert!(is_ours(&topology), "{time}: the datapath serves");
        let between = Load::start(clients, 443, HELD);
        std::thread::sleep(LEG);
        // It serves no new ones any more, and keeps those it has.
        old.signal(Signal::SIGUSR1).expect("it runs");
        std::thread::sleep(LEG);

        let new = haproxy(&topology.lb, &scratch);
        let set = ["set", "cluster", "ocs", "state", "pass"];
        let said = balancer.client(&set).expect("it runs");
        assert!(said.status.success(), "{said:?}");
        assert!(!is_ours(&topology), "{time}: HAProxy serves again");
        let after = Load::start(clients, 443, HELD);
        std::thread::sleep(LEG);
        whole(&before.stop(), "held by HAProxy on the way in");
        whole(&between.stop(), "held by the datapath on the way back");
        balancer.process.stop().expect("it ends");
        let said = balancer.client(&["detach", "--yes"]).expect("it runs");
        assert!(said.status.success(), "{said:?}");
        std::thread::sleep(LEG / 2);
        whole(&after.stop(), "held by HAProxy over the detach");
        old = new;
    }
}

/// 50 s.
#[test]
#[ignore = "needs root"]
fn from_haproxy_and_back() {
    there_and_back(10);
}
