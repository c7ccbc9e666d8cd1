//! ICMP of our own: errors about packets that go no further, and answers to
//! pings.

use ocs_lb_common::icmp::ERRORS_PER_CPU;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::icmp::Icmp;
use ocs_lb_tests::packet::{Frame, dump, flag, hex, verify};
use ocs_lb_tests::plan::{CLIENT, Plan, SERVICE, SNAT, VIP};
use ocs_lb_tests::prog::Action;

use crate::icmp::{OPTIONS, is, run};
use crate::scene::{CLIENT_ISN, Connection, Scene};

/// Errors of our own: (name, whether the backends' side sends the packet, the
/// packet, what is counted, the error).
type Own = (&'static str, bool, Frame, Verdict, &'static str);

fn own_cases(connection: &Connection) -> Vec<Own> {
    let long = vec![b'x'; 600];
    vec![
        (
            "TTL 1 of a SYN",
            false,
            connection.opening().ttl(1),
            Verdict::AnsweredExpired,
            "0200000001fe0200000000010800
             45c000440000400040013bf0c0000201cb007107
             0b00f32300000000
             450000281234400001066993cb007107c00002019c4013c510000000000000005002faf0f6e20000",
        ),
        (
            "TTL 1 of a backend's segment",
            true,
            connection.back(flag::ACK).ttl(1),
            Verdict::AnsweredExpired,
            "02000000020b0200000000020800
             45c00044000040004001e585c6336401c633640b
             0b00498e00000000
             450000281234400001061329c633640bc633640113c54e2020000001100000015010faf0ce880000",
        ),
        (
            "too long for the backends' link, IP options",
            false,
            connection
                .there(flag::ACK)
                .data(long.clone())
                .ip_options(hex(OPTIONS)),
            Verdict::AnsweredTooBig,
            "0200000001fe0200000000010800
             45c0004c0000400040013be8c0000201cb007107
             0304284d00000258
             47000288123440004006902ccb007107c000020194040000010101019c4013c510000001200000015010faf0a74d0000",
        ),
        (
            "too long for the clients' link",
            true,
            connection.back(flag::ACK).data(long),
            Verdict::AnsweredTooBig,
            "02000000020b0200000000020800
             45c00044000040004001e585c6336401c633640b
             03047ec10000024e
             45000280123440004006d1d0c633640bc633640113c54e2020000001100000015010faf09f030000",
        ),
    ]
}

fn narrow() -> Plan {
    Plan {
        mtus: (590, 600),
        ..Plan::default()
    }
}

#[test]
#[ignore = "needs root"]
fn errors_of_our_own() {
    let mut scene = Scene::of(&narrow());
    let connection = scene.open(CLIENT);
    let before = scene.world.flows().expect("flows");
    for (name, from_lan, frame, verdict, expected) in own_cases(&connection) {
        let outcome = run(&mut scene, from_lan, &frame.bytes());
        is(&outcome, verdict, Action::Tx, name);
        assert_eq!(verify(&outcome.bytes), Ok(()), "{name}");
        assert_eq!(dump(&outcome.bytes), dump(&hex(expected)), "{name}");
    }
    assert_eq!(scene.world.flows().expect("flows"), before);

    // A FIN that does not arrive closes nothing.
    let fin = connection.there(flag::FIN | flag::ACK).data(vec![0; 600]);
    assert_eq!(scene.wan(&fin).verdict, Verdict::AnsweredTooBig);
    assert_eq!(scene.world.flows().expect("flows"), before);
    // What fits is sent: 600 bytes there, 590 back.
    scene.forwards(false, &connection.there(flag::ACK).data(vec![0; 560]));
    scene.forwards(true, &connection.back(flag::ACK).data(vec![0; 550]));
    let long = connection.back(flag::ACK).data(vec![0; 551]);
    assert_eq!(scene.lan(&long).verdict, Verdict::AnsweredTooBig);
}

/// A SYN whose time to live ends here opens nothing; one with too much data
/// is told, and its flow waits for a shorter one.
#[test]
#[ignore = "needs root"]
fn a_syn_that_does_not_arrive() {
    let mut scene = Scene::of(&narrow());
    let syn = Frame::tcp(CLIENT, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0);
    for ttl in [0, 1] {
        let outcome = scene.wan(&syn.clone().ttl(ttl));
        is(&outcome, Verdict::AnsweredExpired, Action::Tx, "TTL");
    }
    assert_eq!(scene.entries(), 0);
    let outcome = scene.wan(&syn.clone().data(vec![0; 600]));
    is(&outcome, Verdict::AnsweredTooBig, Action::Tx, "data");
    assert_eq!(verify(&outcome.bytes), Ok(()));
    assert_eq!(scene.held(), (1, 0));
    scene.forwards(false, &syn);
}

#[test]
#[ignore = "needs root"]
fn nobody_is_told() {
    let mut scene = Scene::of(&narrow());
    let connection = scene.open(CLIENT);
    let long = connection.there(flag::ACK).data(vec![0; 600]);
    let mut group = long.clone();
    group.mac_destination = [0xff; 6];
    let outcome = scene.wan(&group);
    is(&outcome, Verdict::TooBig, Action::Drop, "to a group");
    assert_eq!(outcome.bytes, group.bytes());
    let expired = group.clone().data(Vec::new()).ttl(1);
    let outcome = scene.wan(&expired);
    is(&outcome, Verdict::TtlExceeded, Action::Drop, "to a group");

    // The time does not go on within this many.
    let mut told = 0;
    for _ in 0..=2 * ERRORS_PER_CPU {
        match scene.wan(&long).verdict {
            Verdict::AnsweredTooBig => told += 1,
            verdict => assert_eq!(verdict, Verdict::IcmpLimited),
        }
    }
    assert!((1..=2 * ERRORS_PER_CPU).contains(&told), "{told} were told");
}

#[test]
#[ignore = "needs root"]
fn pings() {
    // (name, to, from, our addresses are the host's, what becomes of it)
    let answered = Verdict::AnsweredEcho;
    let cases = [
        ("the VIP", VIP, CLIENT.0, false, answered),
        ("the VIP that the host has", VIP, CLIENT.0, true, answered),
        ("the SNAT address", SNAT, CLIENT.0, false, answered),
        (
            "the host's SNAT address",
            SNAT,
            CLIENT.0,
            true,
            Verdict::NotTcp,
        ),
        ("from the VIP", VIP, VIP, false, Verdict::OwnSource),
        ("from nowhere", VIP, [0; 4], false, Verdict::Martian),
        ("no way back", VIP, [8, 8, 8, 8], false, Verdict::NoRoute),
        (
            "elsewhere",
            [192, 0, 2, 77],
            CLIENT.0,
            false,
            Verdict::NotOurs,
        ),
    ];
    for (name, to, from, host, wanted) in cases {
        let plan = Plan {
            local: host,
            ..Plan::default()
        };
        let mut ping = Icmp::new(from, to, 8, 0);
        ping.rest = [0, 7, 0, 9];
        ping.body = b"hello".to_vec();
        let mut scene = Scene::of(&plan);
        let outcome = run(&mut scene, false, &ping.bytes());
        assert_eq!(outcome.verdict, wanted, "{name}");
        if wanted == answered {
            assert_eq!(outcome.action, Action::Tx, "{name}");
            assert_eq!(verify(&outcome.bytes), Ok(()), "{name}");
            assert_eq!(outcome.bytes[26..34], [to, from].concat(), "{name}");
        } else {
            assert_eq!(outcome.bytes, ping.bytes(), "{name}");
        }
    }
    let mut scene = Scene::of(&narrow());
    let mut ping = Icmp::new(CLIENT.0, VIP, 8, 0);
    ping.rest = [0, 7, 0, 9];
    ping.body = b"hello".to_vec();
    ping.ttl = 1;
    let outcome = run(&mut scene, false, &ping.bytes());
    let expected = "0200000001fe0200000000010800
                    450000211234000040016a9fc0000201cb007107
                    0000bc1d00070009
                    68656c6c6f";
    assert_eq!(dump(&outcome.bytes), dump(&hex(expected)));
    ping.body = vec![0; 600];
    let outcome = run(&mut scene, false, &ping.bytes());
    is(&outcome, Verdict::TooBig, Action::Drop, "a long one");
    let mut cut = ping.bytes();
    cut.truncate(200);
    let outcome = run(&mut scene, false, &cut);
    is(&outcome, Verdict::BadLength, Action::Drop, "a cut one");
}
