//! One connection's way, in both directions, byte by byte.

use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::net::LAN_MAC;
use ocs_lb_tests::packet::{Frame, dump, flag, hex, verify};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, LOW, SERVICE, SNAT};
use ocs_lb_tests::prog::Action;

use crate::scene::{CLIENT_ISN, SERVER_ISN, Scene};

/// (name, whether the backend sends it, the frame, the frame sent on)
type Case = (&'static str, bool, Frame, &'static str);

/// The segments of one connection. The expected bytes are literal: MACs and
/// EtherType, IP header, TCP header, the rest.
fn cases() -> Vec<Case> {
    let syn_options = hex("020405b4 0402080a 00000009 00000000 01030307");
    let timestamp = hex("0101080a 00000102 00000304");
    let (snat, backend) = ((SNAT, LOW), (BACKENDS[0], 5061));
    let client = |flags| Frame::tcp(CLIENT, SERVICE, flags);
    let server = |flags| {
        let mut frame = Frame::tcp(backend, snat, flags);
        frame.mac_destination = LAN_MAC;
        frame.mac_source = [0x02, 0, 0, 0, 0x02, 11];
        frame
    };
    let (c, s) = (CLIENT_ISN, SERVER_ISN);
    vec![
        (
            "SYN",
            false,
            client(flag::SYN)
                .numbers(c, 0)
                .tcp_options(syn_options.clone()),
            "02000000020b0200000000020800
             4500003c123440003f06d514c6336401c633640b
             4e2013c51000000000000000a002faf086ad0000020405b40402080a000000090000000001030307",
        ),
        (
            "SYN-ACK",
            true,
            server(flag::SYN | flag::ACK)
                .numbers(s, c + 1)
                .tcp_options(syn_options),
            "0200000001fe0200000000010800
             4500003c123440003f062b7fc0000201cb007107
             13c59c402000000010000001a012faf06ee60000020405b40402080a000000090000000001030307",
        ),
        (
            "ACK",
            false,
            client(flag::ACK)
                .numbers(c + 1, s + 1)
                .tcp_options(timestamp.clone()),
            "02000000020b0200000000020800
             45000034123440003f06d51cc6336401c633640b
             4e2013c510000001200000018010faf0916b00000101080a0000010200000304",
        ),
        (
            "data, odd length",
            false,
            client(flag::ACK | flag::PSH)
                .numbers(c + 1, s + 1)
                .data(*b"hello"),
            "02000000020b0200000000020800
             4500002d123440003f06d523c6336401c633640b
             4e2013c510000001200000015018faf08aa90000
             68656c6c6f",
        ),
        (
            "answer, with a timestamp",
            true,
            server(flag::ACK | flag::PSH)
                .numbers(s + 1, c + 6)
                .tcp_options(timestamp)
                .data(*b"hi, client"),
            "0200000001fe0200000000010800
             4500003e123440003f062b7dc0000201cb007107
             13c59c4020000001100000068018faf0c9ce00000101080a0000010200000304
             68692c20636c69656e74",
        ),
        (
            "IP options",
            false,
            client(flag::ACK)
                .numbers(c + 6, s + 11)
                .ip_options(hex("94040000 01010101"))
                .data(*b"x"),
            "02000000020b0200000000020800
             47000031123440003f063d19c6336401c633640b9404000001010101
             4e2013c5100000062000000b5010faf056780000
             78",
        ),
        (
            "FIN",
            false,
            client(flag::FIN | flag::ACK).numbers(c + 7, s + 11),
            "02000000020b0200000000020800
             45000028123440003f06d528c6336401c633640b
             4e2013c5100000072000000b5011faf0ce770000",
        ),
        (
            "data after the half-close",
            true,
            server(flag::ACK).numbers(s + 11, c + 8).data(*b"late"),
            "0200000001fe0200000000010800
             4500002c123440003f062b8fc0000201cb007107
             13c59c402000000b100000085010faf0f5f60000
             6c617465",
        ),
        (
            "FIN back",
            true,
            server(flag::FIN | flag::ACK).numbers(s + 15, c + 8),
            "0200000001fe0200000000010800
             45000028123440003f062b93c0000201cb007107
             13c59c402000000f100000085011faf0d6bc0000",
        ),
        (
            "last ACK",
            false,
            client(flag::ACK).numbers(c + 8, s + 16),
            "02000000020b0200000000020800
             45000028123440003f06d528c6336401c633640b
             4e2013c510000008200000105010faf0ce720000",
        ),
    ]
}

#[test]
#[ignore = "needs root"]
fn a_connection_byte_by_byte() {
    let mut scene = Scene::new();
    // (pending, live) after each case.
    let held = [
        (1, 0),
        (1, 0),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 1),
        (0, 0),
        (0, 0),
    ];
    let mut redirected = [0, 0];
    for ((name, from_lan, frame, expected), held) in cases().into_iter().zip(held) {
        let outcome = if from_lan {
            scene.lan(&frame)
        } else {
            scene.wan(&frame)
        };
        assert_eq!(
            (outcome.action, outcome.verdict),
            (Action::Redirect, Verdict::Redirect),
            "{name}"
        );
        assert_eq!(verify(&outcome.bytes), Ok(()), "{name}");
        assert_eq!(dump(&outcome.bytes), dump(&hex(expected)), "{name}");
        assert_eq!(scene.held(), held, "{name}");
        redirected[usize::from(from_lan)] += 1;
        for (slot, wanted) in redirected.into_iter().enumerate() {
            let count = scene
                .world
                .counter(slot as u32, Verdict::Redirect)
                .expect("a counter");
            assert_eq!(count, wanted, "{name}");
        }
    }
    let there = scene
        .world
        .flow(CLIENT, SERVICE)
        .expect("the forward entry");
    let back = scene
        .world
        .flow((BACKENDS[0], 5061), (SNAT, LOW))
        .expect("the reverse entry");
    assert_eq!(there.state.phase(), Phase::Closed);
    assert_eq!(back.state.phase(), Phase::Closed);
    assert_eq!((there.packets, back.packets), (6, 4));
    assert_eq!(
        (there.bytes, back.bytes),
        (60 + 52 + 45 + 49 + 40 + 40, 60 + 62 + 44 + 40)
    );
    assert_eq!((there.scale, back.scale), (7, 7));
    assert_eq!((there.timestamp, back.timestamp), (0x102, 0x102));
    let load = scene.world.load().expect("counts");
    assert_eq!((load.sticky_misses, load.sticky_hits), (1, 0));
    assert_eq!(load.connections[..2], [1, 0]);
    assert_eq!(
        scene.world.sticky(CLIENT.0).map(|entry| entry.backend),
        Some(0)
    );
}

/// A packet that is translated there and back, with only the hop counts changed.
#[test]
#[ignore = "needs root"]
fn every_payload_length_keeps_checksums() {
    let mut scene = Scene::new();
    let connection = scene.open(CLIENT);
    for len in (0..70).chain([535, 536, 1459, 1460]) {
        let payload: Vec<u8> = (0..len).map(|n| (n * 7) as u8).collect();
        for (from_lan, frame) in [
            (false, connection.there(flag::ACK).data(payload.clone())),
            (true, connection.back(flag::ACK).data(payload.clone())),
        ] {
            let bytes = scene.forwards(from_lan, &frame);
            assert_eq!(bytes[54..], payload, "{len} bytes");
            assert_eq!(bytes[22], 63, "{len} bytes");
        }
    }
}

#[test]
#[ignore = "needs root"]
fn padding_after_the_packet_is_kept() {
    let mut scene = Scene::new();
    let mut frame = Frame::tcp(CLIENT, SERVICE, flag::SYN);
    frame.padding = 6;
    let bytes = scene.forwards(false, &frame);
    assert_eq!(bytes.len(), 60);
    assert_eq!(bytes[54..], [0; 6]);
}
