//! One client tuple that comes again and again. About 5 s.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ocs_lb_test_support::netns::Namespace;
use ocs_lb_test_support::tcp;
use ocs_lb_test_support::topology::{SERVERS, client, vip};

use crate::churn::{plain, plain_route};
use crate::world::{World, config};

/// The client's port.
const PORT: u16 = 33_333;
/// A wait for a retransmission.
const LATE: Duration = Duration::from_millis(900);
/// Ports of the servers, by who ends a connection.
const SERVER_FIRST: u16 = 6001;
const CLIENT_FIRST: u16 = 6002;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Server,
    Reset,
    /// The server first, and no timestamps.
    ServerPlainTcp,
}

const ENDS: [End; 4] = [End::Client, End::Server, End::Reset, End::ServerPlainTcp];

/// Servers that end as their port says, one connection at a time.
fn serve(namespace: &Namespace, address: Ipv4Addr) {
    for port in [SERVER_FIRST, CLIENT_FIRST] {
        let listener = namespace
            .run(|| tcp::listen(address, port))
            .expect("namespace")
            .expect("a free port");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                // The client sees every failure itself.
                let _ = stream.write_all(b"x");
                if port == SERVER_FIRST {
                    let _ = stream.shutdown(Shutdown::Write);
                }
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
    }
}

/// Connects once the client's last socket is gone: its FIN may wait for its
/// ACK, for less than a retransmission takes.
fn connect(source: Ipv4Addr, to: SocketAddr) -> std::io::Result<(TcpStream, Duration)> {
    let end = Instant::now() + Duration::from_millis(150);
    loop {
        match tcp::connect((source, PORT), to) {
            Err(error) if error.kind() == ErrorKind::AddrNotAvailable && Instant::now() < end => {}
            done => return done,
        }
    }
}

/// One connection; how long its connect took.
fn once(end: End, source: Ipv4Addr, to: SocketAddr) -> std::io::Result<Duration> {
    let (mut stream, took) = connect(source, to)?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    match end {
        End::Reset => tcp::reset(stream)?,
        End::Client => {
            stream.shutdown(Shutdown::Write)?;
            stream.read_to_end(&mut Vec::new())?;
        }
        End::Server | End::ServerPlainTcp => {
            stream.read_to_end(&mut Vec::new())?;
        }
    }
    Ok(took)
}

/// So many connections, one after the other: late ones, failed ones, slowest.
fn again(
    namespace: &Namespace,
    end: End,
    count: usize,
    source: Ipv4Addr,
    to: SocketAddr,
) -> (usize, Vec<String>, Duration) {
    namespace
        .run(|| {
            let (mut late, mut failed, mut slowest) = (0, Vec::new(), Duration::ZERO);
            for _ in 0..count {
                match once(end, source, to) {
                    Ok(took) => {
                        late += usize::from(took >= LATE);
                        slowest = slowest.max(took);
                    }
                    Err(error) => failed.push(error.to_string()),
                }
            }
            (late, failed, slowest)
        })
        .expect("namespace")
}

/// Every way a connection can end, so many times each.
pub fn reconnects(count: usize) {
    let world = World::new(
        &config([1, 1], "    check: {port: 5061}\n    sticky: off")
            .replace("5065", "6001, 6002, 5065"),
    );
    let topology = &world.topology;
    plain_route(topology);
    for (number, namespace) in topology.servers.iter().enumerate().take(2) {
        serve(namespace, SERVERS[number].1);
    }
    serve(&topology.servers[0], Ipv4Addr::new(203, 0, 113, 1));
    let sysctl = |name: &str, value: &str| {
        let set = topology.clients.run(|| tcp::sysctl(name, value));
        set.expect("namespace").expect("the sysctl");
    };
    // The client may use its tuple at once, whoever closed first.
    sysctl("tcp_max_tw_buckets", "0");
    let mut failures = Vec::new();
    for end in ENDS {
        let timestamps = if end == End::ServerPlainTcp { "0" } else { "1" };
        sysctl("tcp_timestamps", timestamps);
        let port = match end {
            End::Client | End::Reset => CLIENT_FIRST,
            End::Server | End::ServerPlainTcp => SERVER_FIRST,
        };
        let source = Ipv4Addr::new(203, 0, 113, 10);
        let direct = again(&topology.clients, end, count, source, plain(port));
        let balanced = again(&topology.clients, end, count, client(0), vip(port));
        println!(
            "{end:?}, {count} times: plain {} late, {} failed, slowest {:?}; \
             balanced {} late, {} failed, slowest {:?}",
            direct.0,
            direct.1.len(),
            direct.2,
            balanced.0,
            balanced.1.len(),
            balanced.2
        );
        if balanced.0 > direct.0 || balanced.1.len() > direct.1.len() {
            failures.push(format!("{end:?}: {balanced:?} against {direct:?}"));
        }
    }
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
#[ignore = "needs root"]
fn one_tuple_reconnects_ten_thousand_times() {
    reconnects(2500);
}
