//! Every valid frame, cut at every length: never sent, never counted twice or
//! not at all, and what is passed is passed as it came.

use ocs_lb_common::verdict::{Kind, Verdict};
use ocs_lb_tests::packet::{Frame, dump, flag};
use ocs_lb_tests::plan::{CLIENT, Plan, SERVICE, SNAT, VIP};
use ocs_lb_tests::prog::{Action, Program};

use crate::scene::{Connection, Scene};

/// `BPF_PROG_TEST_RUN` takes no frame below this (`net/bpf/test_run.c`).
const SHORTEST: usize = 14;
/// And makes no socket buffer of less than an IP header.
const SHORTEST_BUFFER: usize = 34;

/// SYN options of a Linux client: MSS, SACK, timestamp, NOP, window scale.
const OPTIONS: [u8; 20] = [
    2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
];

/// Frames of the clients' side, and of the backends'.
fn corpus(connection: &Connection) -> Vec<(&'static str, bool, Vec<u8>)> {
    let syn = || Frame::tcp(([203, 0, 113, 9], 41_000), SERVICE, flag::SYN).numbers(7, 0);
    let with = |mut frame: Frame, change: &dyn Fn(&mut Frame)| {
        change(&mut frame);
        frame
    };
    let there = |flags| connection.there(flags);
    let back = |flags| connection.back(flags);
    let tagged = |frame| with(frame, &|frame| frame.vlan = Some(5));
    let padded = |frame| with(frame, &|frame| frame.padding = 6);
    let frames = [
        ("SYN", false, syn()),
        ("SYN with options", false, syn().tcp_options(OPTIONS)),
        ("SYN with data", false, syn().data(*b"early")),
        ("SYN behind IP options", false, syn().ip_options([1; 40])),
        ("data", false, there(flag::ACK | flag::PSH).data([7; 100])),
        (
            "data behind all options",
            false,
            there(flag::ACK)
                .ip_options([1; 12])
                .tcp_options([1; 40])
                .data(*b"abc"),
        ),
        ("FIN", false, there(flag::FIN | flag::ACK)),
        ("RST", false, there(flag::RST)),
        ("answer", true, back(flag::ACK).data([9; 33])),
        ("answered FIN", true, back(flag::FIN | flag::ACK)),
        ("tagged SYN", false, tagged(syn())),
        ("tagged data", false, tagged(there(flag::ACK).data(*b"abc"))),
        (
            "to SSH",
            false,
            Frame::tcp(CLIENT, (VIP, 22), flag::ACK).data(*b"ls"),
        ),
        (
            "to the SNAT address",
            false,
            Frame::tcp(CLIENT, (SNAT, 20_000), flag::ACK),
        ),
        (
            "elsewhere",
            false,
            Frame::tcp(CLIENT, ([192, 0, 2, 77], 80), flag::SYN),
        ),
        ("padded SYN", false, padded(syn())),
        ("padded ACK", false, padded(there(flag::ACK))),
    ];
    let mut corpus: Vec<_> = frames
        .into_iter()
        .map(|(name, from_lan, frame)| (name, from_lan, frame.bytes()))
        .collect();
    let lan_of = |frame: &Frame| frame.bytes()[..SHORTEST].to_vec();
    corpus.push((
        "echo",
        false,
        icmp(&syn().bytes()[..14], 8, [203, 0, 113, 7], VIP, &[3; 32]),
    ));
    let quoted = back(flag::ACK).data([0; 8]).bytes()[14..].to_vec();
    // What a router says of a packet of ours to the client: it came from the VIP.
    let mut inner = quoted.clone();
    inner[12..16].copy_from_slice(&VIP);
    inner[16..20].copy_from_slice(&CLIENT.0);
    corpus.push((
        "ICMP error of a client's router",
        false,
        icmp(&syn().bytes()[..14], 3, [203, 0, 113, 1], VIP, &inner),
    ));
    corpus.push((
        "ICMP error of a backend",
        true,
        icmp(
            &lan_of(&back(flag::ACK)),
            3,
            connection.backend.0,
            SNAT,
            &quoted,
        ),
    ));
    corpus
}

/// An ICMP message behind an Ethernet header, with both checksums.
fn icmp(ethernet: &[u8], kind: u8, from: [u8; 4], to: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0, 0, 0, 0, 0], data].concat();
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum);
    let mut ip = vec![0x45, 0];
    ip.extend(((20 + message.len()) as u16).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 1, 0, 0]);
    ip.extend(from.iter().chain(&to));
    let sum = checksum(&ip);
    ip[10..12].copy_from_slice(&sum);
    [ethernet, &ip, &message].concat()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let words = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

/// Bytes of a frame up to the end of its packet: what follows is padding.
fn packet_end(frame: &[u8]) -> usize {
    let ip = if frame[12..14] == [0x81, 0x00] {
        18
    } else {
        14
    };
    ip + usize::from(u16::from_be_bytes([frame[ip + 2], frame[ip + 3]]))
}

#[test]
#[ignore = "needs root"]
fn a_frame_cut_at_any_length_is_never_sent() {
    for local in [true, false] {
        let mut scene = Scene::of(&Plan {
            local,
            ..Plan::default()
        });
        let connection = scene.open(CLIENT);
        let before = scene.world.flows().expect("flows");
        let mut runs = 0;
        for (name, from_lan, frame) in corpus(&connection) {
            let net = scene.world.net;
            let ifindex = if from_lan { net.lan } else { net.wan };
            let end = packet_end(&frame);
            let shortest = match scene.world.program {
                Program::Xdp => SHORTEST,
                Program::Tc => SHORTEST_BUFFER,
            };
            for len in shortest..end {
                let cut = &frame[..len];
                // One verdict, counted once: anything else is an error.
                let outcome = scene.world.run(ifindex, cut).expect("a run");
                let what = || format!("{name}, {len} of {end} bytes:\n{}", dump(cut));
                let verdict = outcome.verdict;
                match verdict.kind() {
                    Kind::Forward => panic!("{verdict:?} for {}", what()),
                    Kind::Pass => assert_eq!(outcome.action, Action::Pass, "{}", what()),
                    Kind::Drop => assert_eq!(outcome.action, Action::Drop, "{}", what()),
                }
                // Passed ones are compared by the invariant of every run; tags
                // are off a frame that is dropped.
                if frame[12..14] == [0x08, 0x00] {
                    assert_eq!(outcome.bytes, cut, "{}", what());
                }
                // A whole address of ours was dialled by TCP: the host does not get it.
                let tcp = frame[12..14] == [0x08, 0x00] && frame[23] == 6;
                if tcp && len >= 34 && name != "elsewhere" {
                    assert_eq!(verdict, Verdict::BadLength, "{}", what());
                }
                runs += 1;
            }
        }
        assert!(runs > 700, "{runs} runs");
        assert_eq!(
            scene.world.flows().expect("flows"),
            before,
            "no flow noticed"
        );
        assert_eq!(scene.held(), (0, 1));
    }
}

/// The corpus is one of frames that are valid when whole.
#[test]
#[ignore = "needs root"]
fn the_same_frames_whole_are_what_they_seem() {
    for (at, wanted) in [
        ("SYN", Kind::Forward),
        ("SYN with options", Kind::Forward),
        ("SYN with data", Kind::Forward),
        ("SYN behind IP options", Kind::Forward),
        ("data", Kind::Forward),
        ("data behind all options", Kind::Forward),
        ("FIN", Kind::Forward),
        ("RST", Kind::Forward),
        ("answer", Kind::Forward),
        ("answered FIN", Kind::Forward),
        ("to SSH", Kind::Pass),
        ("to the SNAT address", Kind::Pass),
        ("elsewhere", Kind::Pass),
        ("padded SYN", Kind::Forward),
        ("padded ACK", Kind::Forward),
    ] {
        let mut scene = Scene::new();
        let connection = scene.open(CLIENT);
        let corpus = corpus(&connection);
        let found = corpus.into_iter().find(|(name, _, _)| *name == at);
        let (_, from_lan, frame) = found.expect("in the corpus");
        let net = scene.world.net;
        let ifindex = if from_lan { net.lan } else { net.wan };
        let outcome = scene.world.run(ifindex, &frame).expect("a run");
        assert_eq!(outcome.verdict.kind(), wanted, "{at}");
    }
}
