//! How flows end by segments, and what a SYN finds afterwards.

use ocs_lb_common::abi::Slot;
use ocs_lb_common::rest::RESET_SERVE;
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{Frame, flag};
use ocs_lb_tests::plan::{CLIENT, Plan};

use crate::scene::{CLIENT_ISN, Connection, SERVER_ISN, Scene};

/// Both FINs, the client's first; 40 bytes each way more.
pub fn close(scene: &mut Scene, connection: &Connection) {
    scene.forwards(false, &connection.there(flag::FIN | flag::ACK));
    let last = connection.back(flag::FIN | flag::ACK);
    scene.forwards(true, &last.numbers(SERVER_ISN + 1, CLIENT_ISN + 2));
}

/// The same, but the server has not seen the client's when it sends its own.
pub fn cross(scene: &mut Scene, connection: &Connection) {
    scene.forwards(false, &connection.there(flag::FIN | flag::ACK));
    scene.forwards(true, &connection.back(flag::FIN | flag::ACK));
}

/// The same, the server's first.
pub fn close_by_server(scene: &mut Scene, connection: &Connection) {
    scene.forwards(true, &connection.back(flag::FIN | flag::ACK));
    scene.forwards(false, &connection.there(flag::FIN | flag::ACK));
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
        assert_eq!(scene.phase(CLIENT), Some(after), "{name}");
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
    let mut plan = Plan::default();
    // None that could take over.
    plan.cluster.slots[1] = Slot::default();
    plan.reweigh();
    for (name, segment, after, pending) in cases {
        let mut scene = Scene::of(&plan);
        let connection = scene.syn(CLIENT);
        let (from_lan, frame) = segment(&connection);
        scene.forwards(from_lan, &frame);
        assert_eq!(scene.phase(CLIENT), Some(after), "{name}");
        assert_eq!(scene.held(), (pending, 0), "{name}");
    }
}

/// Port reuse: the first SYN of a new connection is never refused because of
/// the old one.
#[test]
#[ignore = "needs root"]
fn a_syn_on_an_ended_flow_opens_another() {
    type End = fn(&mut Scene, &Connection);
    let cases: [(&str, End); 4] = [
        ("closed", close),
        ("crossed", cross),
        ("closed by the server", close_by_server),
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
        assert_ne!(new.snat, old.snat, "{name}: the old port rests");
        assert_eq!(scene.held(), (1, 0), "{name}");
        // Its record is left of the old flow.
        assert_eq!((scene.entries(), scene.ports_used(&new)), (3, 2), "{name}");
        assert_eq!(scene.phase_back(&old), Some(Phase::Dead), "{name}");
        assert_eq!(scene.ports(&old).resting, 1, "{name}");
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
        (scene.phase(CLIENT), scene.held()),
        (Some(Phase::Established), (0, 1))
    );
}

/// A dead flow serves nobody, but a client may open it again at once.
#[test]
#[ignore = "needs root"]
fn a_dead_flow_is_none() {
    let mut scene = Scene::new();
    let connection = scene.open(CLIENT);
    scene.forwards(false, &connection.there(flag::RST));
    scene.world.age(RESET_SERVE).expect("older");
    assert_eq!(scene.world.sweep().expect("a sweep").ended, 1);
    assert_eq!(scene.phase(CLIENT), Some(Phase::Dead));
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
        ((1, 0), 3, 2)
    );
}
