//! The connection of a check: where it comes from.
//!
//! A check leaves from a source port that no flow can have: replies to a SNAT
//! port are the datapath's, and would never reach this socket.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

/// Fewest ephemeral ports outside the SNAT range that are worth using.
const ENOUGH_PORTS: u16 = 64;
/// SNAT ranges begin at 1024; the host's own sockets take these only on request.
const RESERVED: (u16, u16) = (512, 1023);
/// Ports tried for one check before it gives up.
const PORT_TRIES: u32 = 16;

/// Source ports for checks, taken in turn.
#[derive(Debug)]
pub struct SourcePorts {
    first: u16,
    count: u32,
    cursor: AtomicU32,
}

impl SourcePorts {
    /// The ports from `first` to `last`, both included, host order. A range
    /// whose ends are swapped is read the other way round.
    pub fn new((first, last): (u16, u16)) -> Self {
        let (first, last) = (first.min(last), first.max(last));
        Self {
            first,
            count: u32::from(last - first) + 1,
            cursor: AtomicU32::new(0),
        }
    }

    /// The next port. Consecutive checks differ, so that a tuple which a
    /// middlebox or the backend still remembers is not met again at once.
    fn take(&self) -> u16 {
        let next = |cursor| Some((cursor + 1) % self.count);
        let offset = match self
            .cursor
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        {
            Ok(offset) | Err(offset) => offset,
        };
        // `offset` is below `count`, which is at most 65536 - `first`.
        self.first.saturating_add(offset as u16)
    }
}

/// Source ports for checks on a host whose flows use the ports `snat`: the
/// largest part of `ephemeral` outside it if that has at least 64 ports, else
/// 512-1023, which no SNAT range reaches. Ranges include both ends.
pub fn source_ports(snat: (u16, u16), ephemeral: (u16, u16)) -> (u16, u16) {
    let below = (ephemeral.0, ephemeral.1.min(snat.0.saturating_sub(1)));
    let above = (ephemeral.0.max(snat.1.saturating_add(1)), ephemeral.1);
    // `saturating_add` cannot step past 65535: nothing lies above it.
    let above = if snat.1 == u16::MAX { (1, 0) } else { above };
    let below = if snat.0 == 0 { (1, 0) } else { below };
    let size = |(first, last): (u16, u16)| (u32::from(last) + 1).saturating_sub(first.into());
    let best = if size(above) > size(below) {
        above
    } else {
        below
    };
    if size(best) >= ENOUGH_PORTS.into() {
        best
    } else {
        RESERVED
    }
}

/// Connects to `target`. To drop the connection is to reset it, as HAProxy
/// does, so that neither side keeps a TIME_WAIT.
///
/// `source` is the local address, `None` the kernel's choice; the local port is
/// the next of `ports` that is free.
///
/// # Errors
/// The socket's.
pub async fn connect(
    target: SocketAddr,
    source: Option<IpAddr>,
    ports: &SourcePorts,
) -> io::Result<TcpStream> {
    let local = source.unwrap_or(match target {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    });
    let mut last = None;
    for _ in 0..PORT_TRIES.min(ports.count) {
        let from = SocketAddr::new(local, ports.take());
        match open(from, target).await {
            // Both may come from bind or, for a tuple in use, from connect.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable
                ) =>
            {
                last = Some(io::Error::new(
                    error.kind(),
                    format!("source {from}: {error}"),
                ));
            }
            other => return other,
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("no source port")))
}

async fn open(from: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&from.into())?;
    TcpSocket::from_std_stream(socket.into())
        .connect(target)
        .await
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// A loopback address of this process' own: fixed ports do not collide with
    /// a test run next door.
    fn localhost() -> IpAddr {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        Ipv4Addr::new(127, 77, high, low).into()
    }

    #[test]
    fn the_range_avoids_snat_ports() {
        let default = (32768, 60999);
        let cases = [
            ("below is larger", (50000, 65535), default, (32768, 49999)),
            ("above is larger", (1024, 40000), default, (40001, 60999)),
            (
                "snat within: the larger part",
                (40000, 41000),
                default,
                (41001, 60999),
            ),
            ("disjoint below", (1024, 32767), default, default),
            ("disjoint above", (61000, 65535), default, default),
            ("all covered", (1024, 65535), default, RESERVED),
            ("63 left", (1024, 60936), default, RESERVED),
            ("64 left", (1024, 60935), default, (60936, 60999)),
            ("64 left below", (32832, 65535), default, (32768, 32831)),
            ("63 left below", (32831, 65535), default, RESERVED),
            (
                "up to the last port",
                (1024, 60000),
                (50000, 65535),
                (60001, 65535),
            ),
            (
                "snat to the last port",
                (60000, 65535),
                (65000, 65535),
                RESERVED,
            ),
            ("snat from zero", (0, 1000), (0, 65535), (1001, 65535)),
        ];
        for (case, snat, ephemeral, expected) in cases {
            assert_eq!(source_ports(snat, ephemeral), expected, "{case}");
        }
    }

    #[test]
    fn ports_are_taken_in_turn() {
        let ports = SourcePorts::new((65534, 65535));
        let taken: Vec<_> = (0..5).map(|_| ports.take()).collect();
        assert_eq!(taken, [65534, 65535, 65534, 65535, 65534]);
        let whole = SourcePorts::new((0, 65535));
        assert_eq!((0..65536).map(|_| whole.take()).last(), Some(65535));
        assert_eq!(whole.take(), 0);
    }

    #[tokio::test]
    async fn connects_from_a_port_of_the_range_and_resets() {
        let listener = TcpListener::bind((localhost(), 0)).unwrap();
        let target = listener.local_addr().unwrap();
        let ports = SourcePorts::new((20100, 20199));
        drop(connect(target, Some(localhost()), &ports).await.unwrap());
        let (mut stream, peer) = listener.accept().unwrap();
        assert!((20100..=20199).contains(&peer.port()), "{peer}");
        let error = io::Read::read(&mut stream, &mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn passes_over_ports_in_use() {
        let target = TcpListener::bind((localhost(), 0)).unwrap();
        let busy: Vec<_> = (20200..20204)
            .map(|port| TcpListener::bind((localhost(), port)).unwrap())
            .collect();
        let address = target.local_addr().unwrap();
        let ports = SourcePorts::new((20200, 20204));
        let met = connect(address, Some(localhost()), &ports).await.unwrap();
        assert_eq!(met.local_addr().unwrap().port(), 20204);
        let full = SourcePorts::new((20200, 20203));
        let error = connect(address, None, &full).await.unwrap_err();
        assert!(error.to_string().contains("in use"), "{error}");
        drop(busy);
    }
}
