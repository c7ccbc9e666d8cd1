//! Whose the addresses are: the host's own sockets on a VIP or SNAT address go
//! on, and nothing for a VIP that is elsewhere is routed on.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::link;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::tcp;
use ocs_lb_test_support::topology::{LB, SERVERS, VIP, client, router, vip, wire};

use crate::world::{Scratch, World, binary, config};

const CHECK: &str = "    check: {port: 5061, interval: 500ms}";
/// Longest wait for what should come, and for what should not.
const WAIT: Duration = Duration::from_secs(2);

/// Answers every datagram at an address with so many bytes, until one is empty.
fn udp_service(namespace: &Namespace, at: SocketAddr, len: usize) -> std::thread::JoinHandle<()> {
    let socket = namespace
        .run(|| UdpSocket::bind(at).expect("the port is free"))
        .expect("namespace");
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((got, from)) = socket.recv_from(&mut buffer) {
            if got == 0 {
                return;
            }
            let _ = socket.send_to(&vec![0xa5; len], from);
        }
    })
}

/// Asks a service of [`udp_service`] from an address; bytes of the answer.
fn ask(namespace: &Namespace, from: Ipv4Addr, at: SocketAddr) -> std::io::Result<usize> {
    let asked = namespace.run(|| {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.send_to(b"who", at)?;
        socket.recv(&mut [0; 65_535])
    });
    asked.expect("namespace")
}

/// Has a service of [`udp_service`] end.
fn end(namespace: &Namespace, at: SocketAddr, service: std::thread::JoinHandle<()>) {
    let sent = namespace.run(|| UdpSocket::bind((at.ip(), 0))?.send_to(&[], at));
    sent.expect("namespace").expect("sent");
    service.join().expect("no panic");
}

/// A TCP connection from an address of the host's own to a server elsewhere.
fn own_connection(lb: &Namespace, from: Ipv4Addr, to: SocketAddr) -> std::io::Result<String> {
    let said = lb.run(|| {
        let (mut stream, _) = tcp::connect((from, 0), to)?;
        let mut greeting = [0; 64];
        let len = stream.read(&mut greeting)?;
        stream.write_all(b"typing")?;
        stream.read_exact(&mut greeting[len..len + 6])?;
        Ok(String::from_utf8_lossy(&greeting[..len]).into_owned())
    });
    said.expect("namespace")
}

/// Sockets of the host on the VIP and on the SNAT address, in and out, TCP and
/// UDP, whole and in fragments.
#[test]
#[ignore = "needs root"]
fn the_hosts_own_sockets_go_on() {
    let world = World::new(&config([1, 1], CHECK));
    let topology = &world.topology;
    let (lb, clients, backend) = (&topology.lb, &topology.clients, &topology.servers[0]);
    let mut ssh = Server::start(lb, "ssh", VIP, &[22]).expect("a server");
    let mut inner = Server::start(lb, "inner", LB, &[22]).expect("a server");
    let mut theirs = Server::start(clients, "theirs", client(9), &[8080]).expect("a server");
    // A served port's number, and answers larger than a frame.
    let (here, there) = (
        SocketAddr::from((VIP, 5061)),
        SocketAddr::from((client(9), 53)),
    );
    let behind = SocketAddr::from((SERVERS[0].1, 53));
    let services = [(lb, here), (clients, there), (backend, behind)]
        .map(|(namespace, at)| (namespace, at, udp_service(namespace, at, 4000)));

    clients
        .block_on(|| async {
            let mut session = connect(client(0), 0, vip(22)).await?;
            anyhow::ensure!(session.server == "ssh", "{}", session.server);
            session.echo(b"typing").await?;
            session.close().await
        })
        .expect("a listener on an unserved port of the VIP");
    backend
        .block_on(|| async {
            connect(SERVERS[0].1, 0, (LB, 22).into())
                .await?
                .close()
                .await
        })
        .expect("a listener on the SNAT address");
    assert_eq!(ask(clients, client(1), here).expect("UDP to the VIP"), 4000);
    assert_eq!(ask(lb, VIP, there).expect("DNS from the VIP"), 4000);
    let from_snat = ask(lb, LB, behind);
    assert_eq!(from_snat.expect("DNS from the SNAT address"), 4000);
    let server = SocketAddr::from((SERVERS[0].1, 443));
    let own = own_connection(lb, LB, server).expect("TCP from the SNAT address");
    assert!(own.starts_with("OCS_Node1 198.51.100.1:"), "{own}");
    let own = own_connection(lb, VIP, (client(9), 8080).into()).expect("TCP from the VIP");
    assert!(own.starts_with("theirs 192.0.2.1:"), "{own}");

    clients
        .block_on(|| async { connect(client(2), 0, vip(443)).await?.close().await })
        .expect("what is served is served");
    for reason in ["unserved_port", "snat_no_flow", "not_tcp"] {
        assert!(
            world.metric("ocs_lb_passes_total", reason) > 0.0,
            "{reason}"
        );
    }
    for reason in ["fragment", "not_local", "own_source"] {
        assert!(world.metric("ocs_lb_drops_total", reason) < 1.0, "{reason}");
    }
    for (namespace, at, service) in services {
        end(namespace, at, service);
    }
    for server in [&mut ssh, &mut inner, &mut theirs] {
        server.stop().expect("it ran well");
    }
}

/// A host that routes, and a VIP that is not its own: a client's packets reach
/// it, and its routing table has another host for the address.
struct Elsewhere {
    clients: Namespace,
    lb: Namespace,
    server: Namespace,
    /// Who would be reached through the balancer.
    other: Namespace,
    _listener: TcpListener,
    udp: Option<std::thread::JoinHandle<()>>,
}

const OWN: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const BEHIND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

impl Elsewhere {
    fn new() -> Self {
        let make = || Namespace::new().expect("a namespace");
        let (clients, lb, server, other) = (make(), make(), make(), make());
        let far = Ipv4Addr::new(203, 0, 113, 2);
        // Clients have the balancer as their router; the VIP is none of theirs.
        let client = Ipv4Addr::new(192, 0, 2, 10);
        wire((&clients, "eth0", &[client]), (&lb, "eth0", &[OWN])).expect("a wire");
        wire((&lb, "eth1", &[LB]), (&server, "eth0", &[SERVERS[0].1])).expect("a wire");
        wire((&lb, "eth2", &[BEHIND]), (&other, "eth0", &[far, VIP])).expect("a wire");
        router(&lb).expect("a router");
        clients
            .block_on(|| link::host_route(VIP, OWN))
            .expect("a route");
        lb.block_on(|| link::host_route(VIP, far)).expect("a route");
        other
            .block_on(|| async {
                // Its own network for clients is another one.
                link::host_route(client, BEHIND).await
            })
            .expect("a route");
        let listener = other
            .run(|| tcp::listen(VIP, 22).expect("a listener"))
            .expect("namespace");
        let udp = udp_service(&other, (VIP, 53).into(), 10);
        Self {
            clients,
            lb,
            server,
            other,
            _listener: listener,
            udp: Some(udp),
        }
    }

    fn dial(&self) -> std::io::Result<TcpStream> {
        let dialled = self
            .clients
            .run(|| TcpStream::connect_timeout(&vip(22), WAIT));
        dialled.expect("namespace")
    }

    fn query(&self) -> std::io::Result<usize> {
        ask(&self.clients, Ipv4Addr::UNSPECIFIED, (VIP, 53).into())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Some(udp) = self.udp.take() {
            end(&self.other, (VIP, 53).into(), udp);
        }
    }
}

/// Nothing for a VIP is forwarded elsewhere, whatever `unserved` says; ports
/// that are served are served.
#[test]
#[ignore = "needs root"]
fn nothing_for_a_vip_is_routed_on() {
    let net = Elsewhere::new();
    // Without the balancer this host routes them.
    net.dial().expect("routed");
    net.query().expect("routed");
    let (name, address) = SERVERS[0];
    let _server = Server::start(&net.server, name, address, &[443, 5061]).expect("a server");
    for (unserved, tcp, reason) in [
        ("pass", ErrorKind::TimedOut, "not_local"),
        ("drop", ErrorKind::TimedOut, "unserved_port"),
        ("reset", ErrorKind::ConnectionRefused, ""),
        ("auto", ErrorKind::ConnectionRefused, ""),
    ] {
        let text = format!(
            "version: 1
interfaces: [eth0, eth1, eth2]
clusters:
  - name: ocs
    vips: [192.0.2.1]
    ports: [443]
    unserved: {unserved}
    fragments: kernel
    check: {{port: 5061}}
    slow_start: 0s
    backends: [{{name: {name}, address: {address}}}]
"
        );
        let scratch = Scratch::new();
        let balancer =
            Balancer::start(&net.lb, &binary(), &text, &scratch.0).expect("the balancer");
        let error = net.dial().expect_err("nobody is there");
        assert_eq!(error.kind(), tcp, "{unserved}: {error}");
        assert!(net.query().is_err(), "{unserved}: UDP is not routed on");
        net.clients
            .block_on(|| async {
                let mut session = connect(Ipv4Addr::UNSPECIFIED, 0, vip(443)).await?;
                session.echo(b"served").await?;
                session.close().await
            })
            .expect("a served port");
        let metrics = balancer.metrics().expect("metrics");
        for reason in ["not_local", reason] {
            let line = format!("ocs_lb_drops_total{{reason=\"{reason}\"}} ");
            let count = metrics
                .lines()
                .find_map(|text| text.strip_prefix(&line)?.parse::<f64>().ok());
            assert!(
                reason.is_empty() || count > Some(0.0),
                "{reason}: {count:?}"
            );
        }
        let warned = balancer.process.log().contains("fragments: kernel");
        assert!(!warned, "the VIP is not local");
    }
}

/// On a host that has the VIP the same word has no effect, and that is said.
#[test]
#[ignore = "needs root"]
fn fragments_for_the_kernel_of_a_host_with_the_vip() {
    let world = World::new(&config([1, 1], &format!("{CHECK}\n    fragments: kernel")));
    let log = world.balancer.process.log();
    assert!(log.contains("`fragments: kernel` has no effect"), "{log}");
}
