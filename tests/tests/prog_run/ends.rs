//! How flows end: by segments, by time, and what the sweep gives back.

use std::time::Duration;

use ocs_lb_common::rest::{CLOSED_SERVE, DEAD_REST, RESET_SERVE};
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{Frame, flag};
use ocs_lb_tests::plan::{CLIENT, Plan, SERVICE};

use crate::scene::{CLIENT_ISN, Connection, SERVER_ISN, Scene};

/// Sleeps until `ticks` have certainly passed: the clock of packets is exact
/// to two jiffies only.
fn pass(ticks: u32) {
    std::thread::sleep(Duration::from_nanos(u64::from(ticks) << 20) + Duration::from_millis(40));
}

fn phase(scene: &Scene) -> Option<Phase> {
    scene
        .world
        .flow(CLIENT, SERVICE)
        .map(|flow| flow.state.phase())
}

/// Both FINs; 40 bytes each way more.
fn close(scene: &mut Scene, connection: &Connection) {
    scene.forwards(false, &connection.there(flag::FIN | flag::ACK));
    scene.forwards(true, &connection.back(flag::FIN | flag::ACK));
}

/// Nothing is left of any flow.
fn assert_gone(scene: &Scene, connection: &Connection, name: &str) {
    assert_eq!(scene.entries(), 0, "{name}");
    assert_eq!(scene.held(), (0, 0), "{name}");
    assert_eq!(scene.ports_used(connection), 0, "{name}");
}

#[test]
#[ignore = "needs root"]
fn segments_that_end_a_flow() {
    type Segments = fn(&Connection) -> Vec<(bool, Frame)>;
    // (name, segments, phase after, live after)
    let cases: [(&str, Segments, Phase, u32); 7] = [
        (
            "client's RST",
            |c| vec![(false, c.there(flag::RST))],
            Phase::Reset,
            0,
        ),
        (
            "server's RST",
            |c| vec![(true, c.back(flag::RST))],
            Phase::Reset,
            0,
        ),
        (
            "one FIN",
            |c| vec![(true, c.back(flag::FIN | flag::ACK))],
            Phase::Established,
            1,
        ),
        (
            "a FIN twice",
            |c| vec![(false, c.there(flag::FIN | flag::ACK)); 2],
            Phase::Established,
            1,
        ),
        (
            "both FINs",
            |c| {
                vec![
                    (true, c.back(flag::FIN | flag::ACK)),
                    (false, c.there(flag::FIN | flag::ACK)),
                ]
            },
            Phase::Closed,
            0,
        ),
        (
            "RST outside the window",
            |c| {
                vec![(
                    false,
                    c.there(flag::RST)
                        .numbers(CLIENT_ISN.wrapping_sub(9_000_000), 0),
                )]
            },
            Phase::Established,
            1,
        ),
        (
            "RST that was not meant",
            |c| {
                vec![
                    (false, c.there(flag::RST)),
                    (false, c.there(flag::ACK).data(*b"still here")),
                ]
            },
            Phase::Established,
            1,
        ),
    ];
    for (name, segments, after, live) in cases {
        let mut scene = Scene::new();
        let connection = scene.open(CLIENT);
        for (from_lan, frame) in segments(&connection) {
            scene.forwards(from_lan, &frame);
        }
        assert_eq!(phase(&scene), Some(after), "{name}");
        assert_eq!(scene.held(), (0, live), "{name}");
        assert_eq!(scene.entries(), 2, "{name}: the entries rest");
    }
}

#[test]
#[ignore = "needs root"]
fn segments_that_break_off_a_handshake() {
    type Segments = fn(&Connection) -> (bool, Frame);
    let cases: [(&str, Segments, Phase, u32); 5] = [
        (
            "client's RST",
            |c| (false, c.there(flag::RST)),
            Phase::Reset,
            0,
        ),
        (
            "server refuses",
            |c| (true, c.back(flag::RST | flag::ACK)),
            Phase::Reset,
            0,
        ),
        (
            "server's RST of another connection",
            |c| (true, c.back(flag::RST | flag::ACK).numbers(0, 99)),
            Phase::HalfOpen,
            1,
        ),
        (
            "an ACK before the SYN-ACK",
            |c| (false, c.there(flag::ACK)),
            Phase::HalfOpen,
            1,
        ),
        (
            "client's FIN",
            |c| (false, c.there(flag::FIN | flag::ACK)),
            Phase::Reset,
            0,
        ),
    ];
    for (name, segment, after, pending) in cases {
        let mut scene = Scene::new();
        let connection = scene.syn(CLIENT);
        let (from_lan, frame) = segment(&connection);
        scene.forwards(from_lan, &frame);
        assert_eq!(phase(&scene), Some(after), "{name}");
        assert_eq!(scene.held(), (pending, 0), "{name}");
    }
}

/// Port reuse: the first SYN of a new connection is never refused because of
/// the old one.
#[test]
#[ignore = "needs root"]
fn a_syn_on_an_ended_flow_opens_another() {
    type End = fn(&mut Scene, &Connection);
    let cases: [(&str, End); 2] = [
        ("closed", close),
        ("reset", |scene, c| {
            scene.forwards(false, &c.there(flag::RST));
        }),
    ];
    for (name, end) in cases {
        let mut scene = Scene::new();
        let old = scene.open(CLIENT);
        end(&mut scene, &old);
        let new = scene.syn(CLIENT);
        assert_eq!(new.backend, old.backend, "{name}: sticky");
        assert_ne!(
            new.snat, old.snat,
            "{name}: the old port rests until the cursor comes around"
        );
        assert_eq!(scene.held(), (1, 0), "{name}");
        assert_eq!((scene.entries(), scene.ports_used(&new)), (2, 1), "{name}");
        scene.handshake(&new);
        assert_eq!(scene.held(), (0, 1), "{name}");
        // A late segment of the old connection belongs to none.
        let late = scene.lan(&old.back(flag::ACK));
        assert_eq!(late.verdict, Verdict::HostSnat, "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn a_syn_on_a_live_flow_changes_nothing() {
    let mut scene = Scene::new();
    let connection = scene.open(CLIENT);
    scene.forwards(false, &connection.there(flag::SYN).numbers(77, 0));
    assert_eq!(
        (phase(&scene), scene.held()),
        (Some(Phase::Established), (0, 1))
    );
}

/// (name, whether the handshake is finished, whether one side closed)
const BY_TIME: [(&str, bool, bool); 3] = [
    ("half-open", false, false),
    ("idle", true, false),
    ("half-closed", true, true),
];

#[test]
#[ignore = "needs root"]
fn time_ends_flows() {
    const TIMEOUT: u32 = 50;
    for (name, finished, closing) in BY_TIME {
        let mut plan = Plan::default();
        let policy = &mut plan.cluster;
        *match (finished, closing) {
            (false, _) => &mut policy.connect_timeout,
            (true, false) => &mut policy.idle_timeout,
            (true, true) => &mut policy.half_closed_timeout,
        } = TIMEOUT;
        let mut scene = Scene::of(&plan);
        let connection = scene.syn(CLIENT);
        if finished {
            scene.handshake(&connection);
        }
        if closing {
            scene.forwards(false, &connection.there(flag::FIN | flag::ACK));
        }
        let early = scene.world.sweep().expect("a sweep");
        assert_eq!(
            (early.entries, early.ended, early.deleted),
            (2, 0, 0),
            "{name}"
        );
        assert_eq!(
            (early.half_open, early.established),
            (u64::from(!finished), u64::from(finished)),
            "{name}"
        );
        pass(TIMEOUT);
        let report = scene.world.sweep().expect("a sweep");
        assert_eq!((report.ended, report.deleted), (1, 0), "{name}");
        assert_eq!(
            scene.held(),
            (0, 0),
            "{name}: given back at the end, not at the deletion"
        );
        assert_eq!(
            (phase(&scene), scene.ports_used(&connection)),
            (Some(Phase::Dead), 1),
            "{name}"
        );
        pass(DEAD_REST);
        let report = scene.world.sweep().expect("a sweep");
        assert_eq!(
            (report.ended, report.deleted, report.errors, report.orphans),
            (0, 1, 0, 0),
            "{name}"
        );
        assert_gone(&scene, &connection, name);
        let again = scene.world.sweep().expect("a sweep");
        assert_eq!(again, Default::default(), "{name}");
    }
}

/// SYN retransmissions do not prolong a half-open flow, data an idle one.
#[test]
#[ignore = "needs root"]
fn what_keeps_a_flow() {
    const TIMEOUT: u32 = 200;
    for (name, finished, kept) in [("retransmissions", false, false), ("data", true, true)] {
        let mut plan = Plan::default();
        plan.cluster.connect_timeout = TIMEOUT;
        plan.cluster.idle_timeout = TIMEOUT;
        let mut scene = Scene::of(&plan);
        let connection = scene.syn(CLIENT);
        if finished {
            scene.handshake(&connection);
        }
        for _ in 0..2 {
            pass(TIMEOUT / 2);
            let frame = if finished {
                connection.back(flag::ACK).data(*b"x")
            } else {
                Frame::tcp(CLIENT, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0)
            };
            scene.forwards(finished, &frame);
        }
        let report = scene.world.sweep().expect("a sweep");
        assert_eq!(report.ended, u64::from(!kept), "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn ended_flows_rest_and_count_their_bytes() {
    type End = fn(&mut Scene, &Connection);
    // (name, how it ends, rest in ticks, bytes in, bytes out)
    let cases: [(&str, End, u32, u64, u64); 2] = [
        (
            "reset",
            |scene, c| {
                scene.forwards(false, &c.there(flag::RST));
            },
            RESET_SERVE,
            40 + 40 + 40,
            40,
        ),
        ("closed", close, CLOSED_SERVE, 40 + 40 + 40, 40 + 40),
    ];
    for (name, end, rest, bytes_in, bytes_out) in cases {
        let mut scene = Scene::new();
        let connection = scene.open(CLIENT);
        end(&mut scene, &connection);
        pass(rest / 2);
        let report = scene.world.sweep().expect("a sweep");
        assert_eq!((report.ended, report.resting), (0, 1), "{name}");
        // A retransmission meets its flow as long as it rests.
        let late = connection
            .back(flag::ACK)
            .numbers(SERVER_ISN + 2, CLIENT_ISN + 2);
        let late_bytes = if rest == CLOSED_SERVE {
            scene.forwards(true, &late);
            40
        } else {
            0
        };
        pass(rest);
        assert_eq!(scene.world.sweep().expect("a sweep").ended, 1, "{name}");
        pass(DEAD_REST);
        assert_eq!(scene.world.sweep().expect("a sweep").deleted, 1, "{name}");
        assert_gone(&scene, &connection, name);
        let load = scene.world.load().expect("counts");
        assert_eq!(
            (load.bytes_in[0], load.bytes_out[0]),
            (bytes_in, bytes_out + late_bytes),
            "{name}"
        );
    }
}

/// A dead flow serves nobody, but a client may open it again at once.
#[test]
#[ignore = "needs root"]
fn a_dead_flow_is_none() {
    let mut plan = Plan::default();
    plan.cluster.idle_timeout = 1;
    let mut scene = Scene::of(&plan);
    let connection = scene.open(CLIENT);
    pass(1);
    assert_eq!(scene.world.sweep().expect("a sweep").ended, 1);
    assert_eq!(
        scene.wan(&connection.there(flag::ACK)).verdict,
        Verdict::Answered
    );
    assert_eq!(
        scene.lan(&connection.back(flag::ACK)).verdict,
        Verdict::HostSnat
    );
    let new = scene.syn(CLIENT);
    assert_eq!(
        (scene.held(), scene.entries(), scene.ports_used(&new)),
        ((1, 0), 2, 1)
    );
}
