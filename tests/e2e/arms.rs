//! How the balancer stands in the network: routers before and behind it,
//! several links on either side, and backends that dial the VIP themselves.

use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;

use ocs_lb_test_support::PORTS;
use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::client::{Session, connect};
use ocs_lb_test_support::link;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::tcp;
use ocs_lb_test_support::topology::{Arms, LB, SERVERS, VIP, client, router, vip, wire};

use crate::world::{Scratch, World, binary, config};

const CHECK: &str = "    check: {port: 5061, interval: 500ms}";

/// Address `host` of one of four networks with a /24: clients' links first.
const fn at(network: usize, host: u8) -> Ipv4Addr {
    let [a, b, c] = [[192, 0, 2], [203, 0, 113], [198, 51, 100], [198, 18, 1]][network];
    Ipv4Addr::new(a, b, c, host)
}

fn namespace() -> Namespace {
    Namespace::new().expect("a namespace")
}

fn balancer(lb: &Namespace, config: &str) -> (Balancer, Scratch) {
    let scratch = Scratch::new();
    let balancer = Balancer::start(lb, &binary(), config, &scratch.0).expect("the balancer");
    (balancer, scratch)
}

fn serve(namespace: &Namespace, name: &str, address: Ipv4Addr) -> Server {
    Server::start(namespace, name, address, &PORTS).expect("a server")
}

/// A line, a megabyte each way and a late answer.
async fn talk(mut session: Session) -> anyhow::Result<()> {
    session.echo(b"hello").await?;
    let (there, back) = session.bulk(1 << 20).await?;
    anyhow::ensure!(there == back, "a megabyte came back changed");
    session.close().await
}

/// Whole conversations from an address, with every server of a list.
fn reaches(clients: &Namespace, sources: impl IntoIterator<Item = Ipv4Addr>, wanted: &[&str]) {
    let sources: Vec<_> = sources.into_iter().collect();
    let met = clients.block_on(|| async {
        let mut met = std::collections::BTreeSet::new();
        for source in sources {
            let session = connect(source, 0, vip(5061)).await?;
            met.insert(session.server.clone());
            talk(session).await?;
        }
        Ok(met)
    });
    let met = met.expect("conversations");
    assert!(met.iter().eq(wanted), "met {met:?}");
}

/// Clients are three networks away, and only a router knows where.
#[test]
#[ignore = "needs root"]
fn clients_behind_a_router() {
    let (clients, gateway, lb) = (namespace(), namespace(), namespace());
    let servers = [namespace(), namespace()];
    let sources: Vec<_> = (10..30).map(|host| at(1, host)).collect();
    wire(
        (&clients, "eth0", &sources),
        (&gateway, "eth0", &[at(1, 254)]),
    )
    .expect("a wire");
    wire(
        (&gateway, "eth1", &[at(0, 254)]),
        (&lb, "eth0", &[VIP, at(0, 2)]),
    )
    .expect("a wire");
    router(&gateway).expect("a router");
    let to_gateway = || link::default_route(at(1, 254));
    clients.block_on(to_gateway).expect("a route");
    lb.block_on(|| link::default_route(at(0, 254)))
        .expect("a route");
    // A wire to each server, and one network over both.
    let switch = namespace();
    switch
        .block_on(|| link::bridge("switch"))
        .expect("a bridge");
    let ends: [(&str, &Namespace, &str, Ipv4Addr); 3] = [
        ("lb", &lb, "eth1", LB),
        ("node1", &servers[0], "eth0", SERVERS[0].1),
        ("node2", &servers[1], "eth0", SERVERS[1].1),
    ];
    for (port, namespace, name, address) in ends {
        wire((&switch, port, &[]), (namespace, name, &[address])).expect("a wire");
        switch
            .block_on(|| link::enslave(port, "switch"))
            .expect("a port");
    }
    let _running = [0, 1].map(|at| serve(&servers[at], SERVERS[at].0, SERVERS[at].1));
    let (balancer, _scratch) = balancer(&lb, &config([1, 1], CHECK));
    reaches(&clients, sources, &["OCS_Node1", "OCS_Node2"]);
    let flows = balancer.show("flows").expect("show flows");
    assert_eq!(flows.as_array().map(Vec::len), Some(20));
}

/// The next hop of every backend is a gateway, and their way back is another.
#[test]
#[ignore = "needs root"]
fn backends_behind_a_router() {
    let (clients, gateway, lb) = (namespace(), namespace(), namespace());
    let servers = [namespace(), namespace()];
    let sources: Vec<_> = (10..30).map(|host| at(0, host)).collect();
    wire((&clients, "eth0", &sources), (&lb, "eth0", &[VIP])).expect("a wire");
    wire(
        (&lb, "eth1", &[at(1, 1)]),
        (&gateway, "eth0", &[at(1, 254)]),
    )
    .expect("a wire");
    for (number, name) in ["eth1", "eth2"].into_iter().enumerate() {
        let network = 2 + number;
        wire(
            (&gateway, name, &[at(network, 254)]),
            (&servers[number], "eth0", &[at(network, 10)]),
        )
        .expect("a wire");
        servers[number]
            .block_on(|| link::default_route(at(network, 254)))
            .expect("a route");
    }
    router(&gateway).expect("a router");
    lb.block_on(|| async {
        link::route(at(2, 0), at(1, 254)).await?;
        link::route(at(3, 0), at(1, 254)).await
    })
    .expect("routes");
    let running = [0, 1].map(|number| {
        let name = ["near", "far"][number];
        serve(&servers[number], name, at(2 + number, 10))
    });
    let text = format!(
        "version: 1
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [5061]
{CHECK}
    slow_start: 0s
    backends:
      - {{name: near, address: {}}}
      - {{name: far, address: {}}}
",
        at(2, 10),
        at(3, 10)
    );
    let (balancer, _scratch) = balancer(&lb, &text);
    reaches(&clients, sources.clone(), &["far", "near"]);
    // One gateway, one next hop: its MAC is the destination of both.
    clients
        .block_on(|| async {
            let session = connect(sources[0], 0, vip(5061)).await?;
            anyhow::ensure!(session.seen.ip() == at(1, 1), "seen as {}", session.seen);
            session.close().await
        })
        .expect("by the address towards the gateway");
    drop(running);
    drop(balancer);
}

/// Two links to clients and two to servers. One network's packets come in by
/// one link, and its way back is the other.
#[test]
#[ignore = "needs root"]
fn several_links_and_a_way_back_by_another() {
    let (clients, lb) = (namespace(), namespace());
    let servers = [namespace(), namespace()];
    let near: Vec<_> = (10..20).map(|host| at(0, host)).collect();
    let other: Vec<_> = (10..20).map(|host| at(1, host)).collect();
    wire((&clients, "eth0", &near), (&lb, "eth0", &[VIP])).expect("a wire");
    wire((&clients, "eth1", &other), (&lb, "eth1", &[at(1, 1)])).expect("a wire");
    for number in 0..2 {
        let name = ["eth2", "eth3"][number];
        let address = at(2 + number, 10);
        wire(
            (&lb, name, &[at(2 + number, 1)]),
            (&servers[number], "eth0", &[address]),
        )
        .expect("a wire");
    }
    // Answers to an address of eth1 come from the VIP, which is behind eth0:
    // to these clients the way is strange.
    for namespace in [&clients, &lb] {
        for name in ["all", "default", "eth0", "eth1"] {
            let set = namespace.run(|| tcp::sysctl(&format!("conf/{name}/rp_filter"), "0"));
            set.expect("namespace").expect("the sysctl");
        }
    }
    let _running = [0, 1].map(|number| {
        let name = ["left", "right"][number];
        serve(&servers[number], name, at(2 + number, 10))
    });
    let text = format!(
        "version: 1
interfaces: [eth0, eth1, eth2, eth3]
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [5061]
{CHECK}
    slow_start: 0s
    backends:
      - {{name: left, address: {}}}
      - {{name: right, address: {}}}
",
        at(2, 10),
        at(3, 10)
    );
    let (balancer, _scratch) = balancer(&lb, &text);
    reaches(&clients, near, &["left", "right"]);
    // In by eth0, where the VIP is on the link; back by eth1.
    let before = tally(&balancer, "eth0");
    reaches(&clients, other.clone(), &["left", "right"]);
    let through_eth0 = tally(&balancer, "eth0") - before;
    assert!(through_eth0 > 1000.0, "{through_eth0} packets");
    assert!(tally(&balancer, "eth1") < 1.0, "nothing came in by eth1");
    // The same clients by eth1 both ways.
    clients
        .block_on(|| async {
            link::down("eth0").await?;
            link::route(at(0, 0), at(1, 1)).await
        })
        .expect("another way");
    reaches(&clients, other, &["left", "right"]);
    assert!(tally(&balancer, "eth1") > 1000.0);
}

/// Packets that came in by an interface and were sent.
fn tally(balancer: &Balancer, interface: &str) -> f64 {
    let metrics = balancer.metrics().expect("metrics");
    let name = "ocs_lb_datapath_packets_total{";
    let of = format!("interface=\"{interface}\"");
    metrics
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(&of))
        .filter(|line| ["\"tx\"", "\"redirect\""].iter().any(|v| line.contains(v)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// A backend dials the VIP and is given itself, or its neighbour.
fn hairpin(arms: Arms) {
    // Nobody but the first: whoever dials is given that one.
    let world = World::with(arms, &config([1, 0], &format!("    sticky: off\n{CHECK}")));
    for (namespace, (name, address)) in world.topology.servers.iter().zip(SERVERS) {
        namespace
            .block_on(|| link::route(at(0, 0), LB))
            .expect("a route to the VIP");
        namespace
            .block_on(|| async {
                let mut sessions = Vec::new();
                for _ in 0..5 {
                    let session = connect(address, 0, vip(5061)).await?;
                    anyhow::ensure!(session.server == "OCS_Node1", "{}", session.server);
                    anyhow::ensure!(session.seen.ip() == LB, "seen as {}", session.seen);
                    sessions.push(session);
                }
                for session in sessions {
                    talk(session).await?;
                }
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }
    // Clients beside them notice nothing.
    reaches(&world.topology.clients, [client(0)], &["OCS_Node1"]);
    assert_eq!(world.recount().values().sum::<usize>(), 0);
    assert!(world.metric("ocs_lb_drops_total", "own_source") < 1.0);
}

#[test]
#[ignore = "needs root"]
fn a_backend_is_given_itself_on_one_arm() {
    hairpin(Arms::One);
}

#[test]
#[ignore = "needs root"]
fn a_backend_is_given_itself_on_two_arms() {
    hairpin(Arms::Two);
}

/// IP options (RFC 791 section 3.1) are skipped by their length, in every
/// packet of a connection.
#[test]
#[ignore = "needs root"]
fn clients_with_ip_options() {
    const NOP: u8 = 1;
    let record_route = |slots: usize| {
        let mut option = vec![7, 3 + 4 * slots as u8, 4];
        option.resize(3 + 4 * slots, 0);
        option.push(NOP);
        option
    };
    for arms in [Arms::One, Arms::Two] {
        let world = World::with(arms, &config([1, 1], CHECK));
        for options in [
            vec![NOP; 4],
            vec![NOP; 40],
            record_route(1),
            record_route(9),
        ] {
            let echoed = world.topology.clients.run(|| -> std::io::Result<_> {
                let source = (client(3), 0);
                let (mut stream, _) = tcp::connect_with(source, vip(443), &options)?;
                let mut greeting = [0; 64];
                let len = stream.read(&mut greeting)?;
                let data = vec![0x5a; 100_000];
                let mut back = vec![0; data.len()];
                std::thread::scope(|scope| {
                    let mut writer = stream.try_clone()?;
                    let writing = scope.spawn(move || writer.write_all(&[0x5a; 100_000]));
                    stream.read_exact(&mut back)?;
                    writing.join().expect("no panic")
                })?;
                Ok((
                    String::from_utf8_lossy(&greeting[..len]).into_owned(),
                    back == data,
                ))
            });
            let (greeting, same) = echoed.expect("namespace").expect("a connection");
            assert!(greeting.starts_with("OCS_Node"), "{greeting}");
            assert!(same, "{} bytes of options", options.len());
        }
        assert!(world.metric("ocs_lb_drops_total", "bad_length") < 1.0);
    }
}
