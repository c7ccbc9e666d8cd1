//! How flows end by time, with a sweep and without, and what they leave.

use std::time::Duration;

use ocs_lb_common::abi::{EventKind, KillReason, Reason, Slot};
use ocs_lb_common::rest::{CLOSED_SERVE, DEAD_REST, KILLED_SERVE, RESET_SERVE};
use ocs_lb_common::ticks;
use ocs_lb_common::track::Phase;
use ocs_lb_tests::packet::{Frame, flag};
use ocs_lb_tests::plan::{CLIENT, Plan, SERVICE};

use crate::ends::{close, close_by_server, cross};
use crate::scene::{CLIENT_ISN, Connection, SERVER_ISN, Scene};

/// Sleeps until `ticks` have certainly passed: the clock of packets is exact
/// to two jiffies only.
fn pass(ticks: u32) {
    std::thread::sleep(Duration::from_nanos(u64::from(ticks) << 20) + Duration::from_millis(40));
}

const fn seconds(count: u64) -> u32 {
    ticks::duration(Duration::from_secs(count))
}

/// Nothing is left of any flow.
fn assert_gone(scene: &Scene, connection: &Connection, name: &str) {
    assert_eq!(scene.entries(), 0, "{name}");
    assert_eq!(scene.held(), (0, 0), "{name}");
    assert_eq!(scene.ports_used(connection), 0, "{name}");
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
        assert_eq!(report.killed, u64::from(finished), "{name}");
        assert_eq!(
            scene.held(),
            (0, 0),
            "{name}: given back at the end, not at the deletion"
        );
        let (after, rest) = if finished {
            (Phase::Killed, DEAD_REST)
        } else {
            // Its server may be waiting for the end of the handshake.
            (Phase::Dead, seconds(64))
        };
        assert_eq!(
            (scene.phase(CLIENT), scene.ports_used(&connection)),
            (Some(after), 1),
            "{name}"
        );
        if finished {
            scene.world.age(KILLED_SERVE).expect("older");
            let report = scene.world.sweep().expect("a sweep");
            assert_eq!((report.ended, report.deleted), (1, 0), "{name}");
            assert_eq!(scene.phase(CLIENT), Some(Phase::Dead), "{name}");
        }
        scene.world.age(rest - DEAD_REST / 2).expect("older");
        assert_eq!(scene.world.sweep().expect("a sweep").deleted, 0, "{name}");
        scene.world.age(DEAD_REST).expect("older");
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
    const TIMEOUT: u32 = 2_000;
    for (name, finished, kept) in [("retransmissions", false, false), ("data", true, true)] {
        let mut plan = Plan::default();
        plan.cluster.connect_timeout = TIMEOUT;
        plan.cluster.idle_timeout = TIMEOUT;
        // A flow that moves has another try's time.
        plan.cluster.slots[1] = Slot::default();
        plan.reweigh();
        let mut scene = Scene::of(&plan);
        let connection = scene.syn(CLIENT);
        if finished {
            scene.handshake(&connection);
        }
        for _ in 0..2 {
            scene.world.age(TIMEOUT * 2 / 5).expect("older");
            let frame = if finished {
                connection.back(flag::ACK).data(*b"x")
            } else {
                Frame::tcp(CLIENT, SERVICE, flag::SYN).numbers(CLIENT_ISN, 0)
            };
            scene.forwards(finished, &frame);
        }
        scene.world.age(TIMEOUT * 2 / 5).expect("older");
        let report = scene.world.sweep().expect("a sweep");
        assert_eq!(report.ended, u64::from(!kept), "{name}");
    }
}

#[test]
#[ignore = "needs root"]
fn ended_flows_rest_and_count_their_bytes() {
    type End = fn(&mut Scene, &Connection);
    // (name, how it ends, ticks that its entries serve, ticks that its port
    // rests from then on, bytes in, bytes out)
    let time_wait = seconds(60) - CLOSED_SERVE;
    let cases: [(&str, End, u32, u32, u64, u64); 4] = [
        (
            "reset",
            |scene, c| {
                scene.forwards(false, &c.there(flag::RST));
            },
            RESET_SERVE,
            DEAD_REST,
            40 + 40 + 40,
            40,
        ),
        ("closed", close, CLOSED_SERVE, DEAD_REST, 120, 80),
        ("crossed", cross, CLOSED_SERVE, time_wait, 120, 80),
        (
            "by the server",
            close_by_server,
            CLOSED_SERVE,
            time_wait,
            120,
            80,
        ),
    ];
    for (name, end, serves, rest, bytes_in, bytes_out) in cases {
        let mut scene = Scene::new();
        let connection = scene.open(CLIENT);
        end(&mut scene, &connection);
        scene.world.age(serves / 2).expect("older");
        let report = scene.world.sweep().expect("a sweep");
        assert_eq!((report.ended, report.resting), (0, 1), "{name}");
        // A retransmission meets its flow as long as it serves.
        let late = connection
            .back(flag::ACK)
            .numbers(SERVER_ISN + 2, CLIENT_ISN + 2);
        scene.forwards(true, &late);
        scene.world.age(serves).expect("older");
        assert_eq!(scene.world.sweep().expect("a sweep").ended, 1, "{name}");
        scene.world.age(rest - DEAD_REST / 2).expect("older");
        assert_eq!(scene.world.sweep().expect("a sweep").deleted, 0, "{name}");
        scene.world.age(DEAD_REST).expect("older");
        assert_eq!(scene.world.sweep().expect("a sweep").deleted, 1, "{name}");
        assert_gone(&scene, &connection, name);
        let load = scene.world.load().expect("counts");
        assert_eq!(
            (load.bytes_in[0], load.bytes_out[0]),
            (bytes_in, bytes_out + 40),
            "{name}"
        );
    }
}

/// The sweep kills what is idle; where none runs, the flow's next packet does,
/// from whichever side.
#[test]
#[ignore = "needs root"]
fn an_idle_flow_is_killed() {
    for (name, met) in [
        ("sweep", None),
        ("client", Some(false)),
        ("backend", Some(true)),
    ] {
        let mut plan = Plan::default();
        plan.cluster.idle_timeout = 5_000;
        let mut scene = Scene::of(&plan);
        let flow = scene.open(CLIENT);
        scene.world.events();
        scene.age(Duration::from_secs(6));
        let (there, back) = (flow.there(flag::ACK), flow.back(flag::ACK));
        match met {
            None => {
                let report = scene.world.sweep().expect("a sweep");
                assert_eq!((report.killed, report.ended, report.untold), (1, 1, 0));
            }
            Some(true) => assert_eq!(scene.answered(true, &back).seq, back.ack),
            Some(false) => assert_eq!(scene.answered(false, &there).seq, there.ack),
        }
        assert_eq!(scene.phase(CLIENT), Some(Phase::Killed), "{name}");
        assert_eq!((scene.held(), scene.entries()), ((0, 0), 2), "{name}");
        let [told] = scene.world.kills()[..] else {
            panic!("{name}: not one record");
        };
        assert_eq!(told.reason, KillReason::Idle as u8, "{name}");
        assert_eq!(
            scene.told(),
            [(EventKind::Close, Some(Reason::Idle))],
            "{name}"
        );
        scene.answered(false, &there);
        scene.answered(true, &back);
        assert_eq!(
            (scene.world.kills().len(), scene.told().len()),
            (0, 0),
            "{name}"
        );
    }
}
