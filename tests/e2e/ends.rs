//! Flows that we end: idle ones, those of a dead server, and none when our own
//! link is what fails. 8, 4 and 21 s.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ocs_lb_test_support::flood::{packet_socket, receive};
use ocs_lb_test_support::link;
use ocs_lb_test_support::tcp;
use ocs_lb_test_support::topology::{CLIENTS, LB, SERVERS, client, vip};

use crate::world::{World, config};

/// Flows of the tests with many.
const FLOWS: usize = 1000;
/// Detection: three checks, each after its timeout.
const CHECK: &str = "    sticky: off
    check: {port: 5061, interval: 300ms, timeout: 300ms, rise: 2, fall: 3}
    on_backend_down: {action: reset}";
const DETECTION: Duration = Duration::from_millis(3 * 600);

fn world() -> World {
    World::new(&config([1, 1], CHECK).replace("    on_backend_down: {action: keep}\n", ""))
}

/// Connects and reads the greeting; the server's name too.
fn session(number: usize) -> std::io::Result<(String, TcpStream)> {
    let source = client((number % usize::from(CLIENTS)) as u8);
    let (mut stream, _) = tcp::connect((source, 0), vip(443))?;
    let mut line = [0; 64];
    let len = stream.read(&mut line)?;
    let text = String::from_utf8_lossy(&line[..len]).into_owned();
    let name = text.split(' ').next().unwrap_or_default().to_owned();
    Ok((name, stream))
}

fn echo(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"there?")?;
    stream.read_exact(&mut [0; 6])
}

/// Waits for the RST of a silent session.
fn wait_reset(stream: &mut TcpStream) -> std::io::Result<()> {
    match stream.read(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error),
        Ok(len) => Err(std::io::Error::other(format!("{len} bytes, no reset"))),
    }
}

#[test]
#[ignore = "needs root"]
fn an_idle_flow_lives_as_long_as_it_may_and_is_then_reset() {
    const TIMEOUT: Duration = Duration::from_secs(3);
    let text = "    check: {port: 5061}
    timeouts: {client: 3s, server: 3s}";
    let world = World::new(
        &config([1, 1], text)
            .replace("5065", "6001, 5065")
            .replace("    on_backend_down: {action: keep}\n", ""),
    );
    let ends: Vec<_> = (0..2)
        .map(|number| {
            let listener = world.topology.servers[number]
                .run(|| tcp::listen(SERVERS[number].1, 6001))
                .expect("namespace")
                .expect("a free port");
            let (sender, ended) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (sender, mut stream) = (sender.clone(), stream.expect("accepted"));
                    std::thread::spawn(move || {
                        let mut byte = [0];
                        let end = loop {
                            match stream.read(&mut byte) {
                                Ok(0) => break "closed".to_owned(),
                                Ok(_) => stream.write_all(&byte).expect("written"),
                                Err(error) => break format!("{:?}", error.kind()),
                            }
                        };
                        // The test may be over.
                        let _ = sender.send(end);
                    });
                }
            });
            ended
        })
        .collect();
    let (idle, after) = world
        .topology
        .clients
        .run(|| {
            let (mut stream, _) = tcp::connect((client(0), 0), vip(6001))?;
            for _ in 0..2 {
                stream.write_all(b"x")?;
                stream.read_exact(&mut [0])?;
                // Nine tenths of it, then it talks again.
                std::thread::sleep(TIMEOUT * 9 / 10);
            }
            stream.write_all(b"x")?;
            stream.read_exact(&mut [0])?;
            let start = Instant::now();
            let end = wait_reset(&mut stream);
            Ok::<_, std::io::Error>((end, start.elapsed()))
        })
        .expect("namespace")
        .expect("it lives for nine tenths of its time");
    println!("reset after {after:?}");
    idle.expect("a reset");
    assert!(after >= TIMEOUT, "{after:?}");
    // Two sweeps, a second apart.
    assert!(after <= TIMEOUT + Duration::from_millis(2500), "{after:?}");
    let end = ends
        .iter()
        .find_map(|ended| ended.recv_timeout(Duration::from_millis(500)).ok());
    assert_eq!(end.as_deref(), Some("ConnectionReset"), "the server's side");
}

/// Counts clients' ports that are told by a RST on a server's link.
fn capture_resets(world: &World, stop: &AtomicBool) -> BTreeSet<u16> {
    let seen = world.topology.servers[0].run(|| -> std::io::Result<_> {
        let (fd, mut buffer) = (packet_socket("eth0", true)?, [0; 2048]);
        let mut ports = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            let Some(len) = receive(&fd, &mut buffer, Duration::from_millis(20))? else {
                continue;
            };
            let frame = &buffer[..len];
            let is_reset = len >= 54
                && frame[12..14] == [0x08, 0x00]
                && frame[23] == 6
                && frame[26..30] == LB.octets()
                && frame[36..38] == 443u16.to_be_bytes()
                && frame[47] & 0x04 != 0;
            if is_reset {
                ports.insert(u16::from_be_bytes([frame[34], frame[35]]));
            }
        }
        Ok(ports)
    });
    seen.expect("namespace").expect("a capture")
}

#[test]
#[ignore = "needs root"]
fn a_silent_deaths_flows_are_reset_on_both_sides() {
    let world = world();
    let stop = AtomicBool::new(false);
    let clients = world.topology.clients.clone();
    let (dead, captured, resets, served) = std::thread::scope(|scope| {
        let capture = scope.spawn(|| capture_resets(&world, &stop));
        let run = clients.run(|| {
            let all: Vec<_> = (0..FLOWS)
                .map(|number| session(number).expect("served"))
                .collect();
            let (dead, mut alive): (Vec<_>, Vec<_>) = all
                .into_iter()
                .partition(|(server, _)| server == "OCS_Node1");
            let switch = world.topology.servers[0].block_on(|| link::silence(LB, 32, true));
            switch.expect("a silent server");
            let start = Instant::now();
            let count = dead.len();
            let threads: Vec<_> = dead
                .into_iter()
                .enumerate()
                .map(|(number, (_, mut stream))| {
                    let work = move || {
                        let reset = wait_reset(&mut stream).map(|()| start.elapsed());
                        drop(stream);
                        // At once, as a client does.
                        let again = Instant::now();
                        let served = session(number).map(|(name, _)| (name, again.elapsed()));
                        (reset, served)
                    };
                    // A thread starts in the namespace of its parent.
                    std::thread::Builder::new()
                        .stack_size(128 * 1024)
                        .spawn(work)
                        .expect("a thread")
                })
                .collect();
            let (mut resets, mut served) = (Vec::new(), Vec::new());
            for thread in threads {
                let (reset, session) = thread.join().expect("no panic");
                resets.push(reset);
                served.push(session);
            }
            for (_, stream) in &mut alive {
                echo(stream).expect("the other server's flows notice nothing");
            }
            (count, resets, served)
        });
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        let (dead, resets, served) = run.expect("namespace");
        let captured = capture.join().expect("no panic");
        (dead, captured, resets, served)
    });
    let lost: Vec<_> = resets
        .iter()
        .filter_map(|reset| reset.as_ref().err())
        .collect();
    let last = resets.iter().flatten().max().copied().unwrap_or_default();
    let refused: Vec<_> = served.iter().filter_map(|s| s.as_ref().err()).collect();
    let slowest = served.iter().flatten().map(|(_, took)| *took).max();
    println!(
        "{dead} flows: {} without a reset, the last one after {last:?}; {} seen at the server; \
         {} not served again, slowest {slowest:?}",
        lost.len(),
        captured.len(),
        refused.len()
    );
    assert!(lost.is_empty(), "{lost:?}");
    assert!(last <= DETECTION + Duration::from_secs(1), "{last:?}");
    assert_eq!(captured.len(), dead, "resets on the server's link");
    assert!(refused.is_empty(), "{refused:?}");
    assert!(slowest <= Some(Duration::from_secs(3)), "{slowest:?}");
    let others = served
        .iter()
        .flatten()
        .filter(|(name, _)| name != "OCS_Node2");
    assert_eq!(others.count(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_break_of_our_own_link_resets_nothing() {
    let world = world();
    let clients = world.topology.clients.clone();
    let mut sessions = clients
        .run(|| {
            let sessions = (0..FLOWS).map(|number| session(number).expect("served").1);
            sessions.collect::<Vec<_>>()
        })
        .expect("namespace");
    let switch = &world.topology.switch;
    switch.block_on(|| link::down("lb")).expect("the link");
    std::thread::sleep(Duration::from_secs(15));
    let down = world.metric("ocs_lb_backend_up", "OCS_Node");
    switch.block_on(|| link::up("lb")).expect("the link");
    assert_eq!(down, 0.0, "the checks noticed");
    let (start, mut broken) = (Instant::now(), Vec::new());
    for stream in &mut sessions {
        if let Err(error) = echo(stream) {
            broken.push(error.to_string());
        }
    }
    println!(
        "{} of {FLOWS} broken, all asked in {:?}",
        broken.len(),
        start.elapsed()
    );
    std::thread::sleep(Duration::from_secs(3));
    let end = Instant::now() + Duration::from_secs(10);
    while world.metric("ocs_lb_backend_up", "OCS_Node") < 2.0 {
        assert!(Instant::now() < end, "they do not come up again");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(broken.is_empty(), "{broken:?}");
    for stream in &mut sessions {
        echo(stream).expect("and it stays so");
    }
    assert_eq!(world.metric("ocs_lb_backend_resets_total", ""), 0.0);
    world
        .topology
        .clients
        .run(|| session(0))
        .expect("namespace")
        .expect("new ones are served");
}
