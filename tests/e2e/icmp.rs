//! ICMP with real sockets: pings, path MTU, TTL, and backends that the network
//! says cannot be reached.

use std::io::Read as _;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use ocs_lb_test_support::balancer::Balancer;
use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::link;
use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::server::Server;
use ocs_lb_test_support::tcp;
use ocs_lb_test_support::topology::{Arms, SERVERS, Topology, VIP, client, vip};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::world::{Scratch, binary, config};

/// Nobody is ever marked down.
const UNCHECKED: &str = "    check: off\n    sticky: off";
/// Bytes of a download.
const LEN: usize = 16 << 20;

/// Network, servers and balancer, where the network is prepared first.
struct Place {
    topology: Topology,
    balancer: Balancer,
    _servers: Vec<Server>,
    _scratch: Scratch,
}

impl Place {
    fn new(prepare: impl FnOnce(&Topology)) -> Self {
        let topology = Topology::new(Arms::Two).expect("namespaces");
        prepare(&topology);
        let scratch = Scratch::new();
        let servers = SERVERS[..2].iter().zip(&topology.servers);
        let servers = servers.filter_map(|((name, address), namespace)| {
            Server::start(namespace, name, *address, &[443]).ok()
        });
        let servers = servers.collect();
        let text = config([1, 1], UNCHECKED);
        let balancer = Balancer::start(&topology.lb, &binary(), &text, &scratch.0);
        Self {
            topology,
            balancer: balancer.expect("the balancer starts"),
            _servers: servers,
            _scratch: scratch,
        }
    }
}

/// A socket that gets all ICMP of its namespace.
fn icmp_socket() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).expect("root");
    let patience = Some(Duration::from_secs(2));
    socket.set_read_timeout(patience).expect("a timeout");
    socket
}

/// The next IP packet with ICMP that it gets, if any.
fn receive(socket: &Socket) -> Option<Vec<u8>> {
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let (len, _) = socket.recv_from(&mut buffer).ok()?;
    // SAFETY: the kernel wrote this many bytes.
    let read = |byte: &MaybeUninit<u8>| unsafe { byte.assume_init() };
    Some(buffer[..len].iter().map(read).collect())
}

#[test]
#[ignore = "needs root"]
fn a_vip_answers_ping() {
    let place = Place::new(|_| {});
    let answered = place.topology.clients.run(|| {
        let socket = icmp_socket();
        let mut ping = [8, 0, 0, 0, 0, 7, 0, 9, b'h', b'i', 0, 0];
        let sum: u32 = ping
            .chunks(2)
            .map(|w| u32::from(w[0]) << 8 | u32::from(w[1]))
            .sum();
        let sum = !((sum >> 16) + (sum & 0xffff)) as u16;
        ping[2..4].copy_from_slice(&sum.to_be_bytes());
        let to = SockAddr::from(SocketAddr::from((VIP, 0)));
        let start = Instant::now();
        socket.send_to(&ping, &to).expect("sent");
        let reply = receive(&socket).expect("a reply");
        assert_eq!(reply[12..16], VIP.octets());
        assert_eq!((reply[20], &reply[24..]), (0, &ping[4..]));
        start.elapsed()
    });
    println!("answered in {:?}", answered.expect("namespace"));
    assert!(
        place
            .balancer
            .metrics()
            .expect("metrics")
            .contains("answered_echo")
    );
}

/// The first step of a `traceroute -T`: the VIP itself says where the packet
/// ended, and quotes it.
#[test]
#[ignore = "needs root"]
fn a_syn_with_ttl_1_is_told() {
    let place = Place::new(|_| {});
    let (error, told) = place
        .topology
        .clients
        .run(|| {
            let listening = icmp_socket();
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket
                .bind(&SockAddr::from(SocketAddr::from((client(0), 40_001))))
                .expect("free");
            socket.set_ttl_v4(1).expect("a TTL");
            let to = SockAddr::from(vip(443));
            let result = socket.connect_timeout(&to, Duration::from_millis(500));
            (
                result.expect_err("no connection"),
                receive(&listening).expect("an error"),
            )
        })
        .expect("namespace");
    println!("the client's connect says: {error}");
    assert_eq!(told[12..16], VIP.octets());
    assert_eq!((told[20], told[21]), (11, 0));
    let quote = &told[28..];
    assert_eq!((quote[8], &quote[16..20]), (1, &VIP.octets()[..]));
    assert_eq!(
        quote[20..24],
        [40_001u16.to_be_bytes(), 443u16.to_be_bytes()].concat()
    );
}

/// Serves one connection: takes all that comes, or sends so much.
fn serve(namespace: &Namespace, address: Ipv4Addr, takes: bool) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    // Ends with its connection, or with the patience of who would make one.
    let _ = namespace.spawn(move || async move {
        let listener = tokio::net::TcpListener::bind((address, 444)).await?;
        let accepted = tokio::time::timeout(Duration::from_secs(40), listener.accept());
        let (mut stream, _) = accepted.await??;
        if takes {
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await?;
            stream.write_all(&(all.len() as u64).to_be_bytes()).await?;
        } else {
            stream.write_all(&vec![7; LEN]).await?;
        }
        Ok(())
    });
}

/// Moves so much one way.
fn bulk(from: &Namespace, source: Ipv4Addr, takes: bool) -> Duration {
    use std::io::Write as _;
    let took = from.run(|| {
        let start = Instant::now();
        let (mut stream, _) = tcp::connect((source, 0), vip(444)).expect("connected");
        let mut answer = Vec::new();
        if takes {
            stream.write_all(&vec![7; LEN]).expect("no stall");
            stream.shutdown(std::net::Shutdown::Write).expect("open");
        }
        stream.read_to_end(&mut answer).expect("no stall");
        if takes {
            assert_eq!(answer, (LEN as u64).to_be_bytes());
        } else {
            assert_eq!(answer.len(), LEN);
        }
        start.elapsed()
    });
    took.expect("namespace")
}

fn serve_both(topology: &Topology, takes: bool) {
    for ((_, address), namespace) in SERVERS[..2].iter().zip(&topology.servers) {
        serve(namespace, *address, takes);
    }
    // They listen in a moment.
    std::thread::sleep(Duration::from_millis(100));
}

/// Both of our links and all machines behind have 1,500 bytes but the client's,
/// behind a router with 1,280: its MSS says 1,460.
#[test]
#[ignore = "needs root"]
fn a_small_link_at_the_clients_router() {
    let far = Namespace::new().expect("a namespace");
    let (router, behind) = (Ipv4Addr::new(203, 0, 113, 1), Ipv4Addr::new(203, 0, 113, 2));
    let place = Place::new(|topology| {
        let fd = far.raw_fd();
        let clients = &topology.clients;
        clients
            .block_on(|| async {
                link::veth("eth1", "eth0", fd).await?;
                link::addresses("eth1", [router]).await?;
                link::set_mtu("eth1", 1280).await?;
                link::up("eth1").await
            })
            .expect("the router");
        clients
            .run(|| tcp::sysctl("ip_forward", "1"))
            .expect("namespace")
            .expect("written");
        clients
            .run(|| link::wire_like("eth1"))
            .expect("namespace")
            .expect("offloads");
        far.run(|| link::wire_like("eth0"))
            .expect("namespace")
            .expect("offloads");
        far.block_on(|| async {
            link::addresses("eth0", [behind]).await?;
            link::up("eth0").await?;
            link::default_route(router).await
        })
        .expect("the client");
        topology
            .lb
            .block_on(|| link::route(Ipv4Addr::new(203, 0, 113, 0), client(0)))
            .expect("the way back");
    });
    serve_both(&place.topology, false);
    println!("16 MiB in {:?}", bulk(&far, behind, false));
}

/// A small link of ours, towards the servers or the clients, of which the far
/// end knows nothing: who sends too much is told so by us.
#[test]
#[ignore = "needs root"]
fn different_links_of_ours() {
    for (ours, takes) in [("eth1", true), ("eth0", false)] {
        let place = Place::new(|topology| {
            let small = topology.lb.block_on(|| link::set_mtu(ours, 1280));
            small.expect("the MTU");
        });
        serve_both(&place.topology, takes);
        let took = bulk(&place.topology.clients, client(3), takes);
        println!("{ours} has 1,280 bytes: 16 MiB in {took:?}");
        let metrics = place.balancer.metrics().expect("metrics");
        assert!(metrics.contains("answered_too_big"), "{ours}");
    }
}

/// Has a server's machine be a router that says its address cannot be reached.
fn unreachable(topology: &Topology, number: usize) {
    let (machine, address) = (&topology.servers[number], SERVERS[number].1);
    let router = Ipv4Addr::new(198, 51, 100, 200 + number as u8);
    machine
        .run(|| tcp::sysctl("ip_forward", "1"))
        .expect("namespace")
        .expect("written");
    machine
        .run(|| tcp::sysctl("icmp_ratelimit", "0"))
        .expect("namespace")
        .expect("written");
    machine
        .block_on(|| async {
            link::remove_address("eth0", address).await?;
            link::addresses("eth0", [router]).await?;
            link::unreachable(address).await
        })
        .expect("a router");
}

/// Has the balancer send to that machine, which does not say where the address
/// is: it would have to have it.
fn lead_there(topology: &Topology, number: usize) {
    let (machine, address) = (&topology.servers[number], SERVERS[number].1);
    let mac = machine.block_on(|| link::mac("eth0")).expect("a MAC");
    topology
        .lb
        .block_on(|| link::neighbor("eth1", address, mac))
        .expect("a neighbour");
    // The balancer hears of it.
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
#[ignore = "needs root"]
fn an_unreachable_server_is_never_met() {
    let place = Place::new(|topology| unreachable(topology, 0));
    lead_there(&place.topology, 0);
    // The router's kernel says so five times at once.
    for number in 0..4 {
        let start = Instant::now();
        let session = place
            .topology
            .clients
            .block_on(|| connect(client(number), 0, vip(443)))
            .expect("no connection fails");
        assert_eq!(session.server, "OCS_Node2");
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "{:?}",
            start.elapsed()
        );
    }
}

/// With nobody left the client is told, by the VIP and of nothing behind it.
#[test]
#[ignore = "needs root"]
fn no_error_shows_a_server() {
    let place = Place::new(|topology| {
        unreachable(topology, 0);
        unreachable(topology, 1);
    });
    lead_there(&place.topology, 0);
    lead_there(&place.topology, 1);
    let told = place.topology.clients.run(|| {
        let listening = icmp_socket();
        let start = Instant::now();
        let result = tcp::connect((client(5), 0), vip(443));
        let error = result.expect_err("nobody is there");
        println!("{error} after {:?}", start.elapsed());
        receive(&listening).expect("an error")
    });
    let told = told.expect("namespace");
    assert_eq!(
        (&told[12..16], told[20], told[21]),
        (&VIP.octets()[..], 3, 1)
    );
    let shown = told.windows(3).any(|bytes| bytes == [198, 51, 100]);
    assert!(!shown, "{told:?}");
}

/// Links of 9,000 bytes on the whole way: a frame is more than a page, and lies
/// in pieces before the program.
#[test]
#[ignore = "needs root"]
fn jumbo_frames() {
    let place = Place::new(|topology| {
        let set = |namespace: &Namespace, names: &'static [&'static str]| {
            namespace
                .block_on(|| async move {
                    for name in names {
                        link::set_mtu(name, 9000).await?;
                    }
                    Ok(())
                })
                .expect("the MTU");
        };
        set(&topology.clients, &["eth0"]);
        set(&topology.lb, &["eth0", "eth1"]);
        set(
            &topology.switch,
            &["lb", "node1", "node2", "backup", "switch"],
        );
        for server in &topology.servers {
            set(server, &["eth0"]);
        }
    });
    place
        .topology
        .clients
        .block_on(|| async {
            let mut session = connect(client(1), 0, vip(443)).await?;
            let (sent, received) = session.bulk(LEN).await?;
            assert_eq!(sent, received, "hashes of both ways");
            session.close().await
        })
        .expect("a session");
    let text = place.balancer.metrics().expect("metrics");
    let forwarded: f64 = text
        .lines()
        .filter(|line| line.starts_with("ocs_lb_datapath_packets_total"))
        .filter(|line| line.contains("\"redirect\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    println!("32 MiB in {forwarded} frames, acknowledgments among them");
    // With 1,500 bytes the data alone takes 22,982.
    assert!(forwarded < 15_000.0, "{forwarded} frames: none was long");
}
