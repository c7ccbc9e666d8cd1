//! A cluster in `pass`: what no flow knows is the host's, our flows stay ours.

use ocs_lb_common::abi::{ClusterState, Unknown};
use ocs_lb_common::track::Phase;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{Frame, dump, flag, hex};
use ocs_lb_tests::plan::{BACKENDS, CLIENT, Plan, SERVICE, VIP};
use ocs_lb_tests::prog::Action;

use crate::ends::close;
use crate::scene::{CLIENT_ISN, SERVER_ISN, Scene, client};

fn set(scene: &mut Scene, plan: &mut Plan, state: ClusterState) {
    plan.cluster.state = state as u8;
    let clusters = &mut scene.world.loaded.maps.clusters;
    clusters.set(0, plan.cluster, 0).expect("a write");
}

/// Passed as it came, counted, and nothing else happened.
fn passes(scene: &mut Scene, frame: &Frame) {
    let before = (scene.load(), scene.world.flows().expect("flows"));
    let counted = scene.world.counter(0, Verdict::ClusterPass).expect("one");
    let outcome = scene.wan(frame);
    let seen = dump(&frame.bytes());
    assert_eq!(
        (outcome.verdict, outcome.action),
        (Verdict::ClusterPass, Action::Pass),
        "{seen}"
    );
    assert_eq!(dump(&outcome.bytes), seen);
    let now = scene.world.counter(0, Verdict::ClusterPass).expect("one");
    assert_eq!(now, counted + 1, "{seen}");
    let after = (scene.load(), scene.world.flows().expect("flows"));
    assert!(after == before, "{seen}");
}

#[test]
#[ignore = "needs root"]
fn what_no_flow_knows_is_the_hosts() {
    let mut plan = Plan::default();
    plan.cluster.unknown = Unknown::Drop as u8;
    let mut scene = Scene::of(&plan);
    set(&mut scene, &mut plan, ClusterState::Pass);
    for (name, bytes) in [
        (
            "SYN",
            "020000000001 0200000001fe 0800
             45000028 00004000 40063cc7 cb007107 c0000201
             9c4013c5 10000000 00000000 50027210 7fc3 0000",
        ),
        (
            "ACK",
            "020000000001 0200000001fe 0800
             45000028 00004000 40063cc7 cb007107 c0000201
             9c4013c5 10000001 20000001 50107210 5fb3 0000",
        ),
    ] {
        let bytes = hex(bytes);
        let wan = scene.world.net.wan;
        let outcome = scene.world.run(wan, &bytes).expect("a run");
        let found = (outcome.verdict, outcome.action);
        assert_eq!(found, (Verdict::ClusterPass, Action::Pass), "{name}");
        assert_eq!(dump(&outcome.bytes), dump(&bytes), "{name}");
    }
    for flags in [flag::SYN, flag::ACK, flag::FIN | flag::ACK, flag::RST] {
        passes(&mut scene, &Frame::tcp(CLIENT, SERVICE, flags));
    }
    passes(&mut scene, &Frame::tcp(CLIENT, (VIP, 443), flag::SYN));
    // What the cluster does not serve is nobody's business here.
    let other = scene.wan(&Frame::tcp(CLIENT, (VIP, 22), flag::SYN));
    assert_eq!(other.verdict, Verdict::Unserved);
    assert_eq!(scene.entries(), 0);
    assert_eq!(scene.world.sticky(CLIENT.0), None);

    set(&mut scene, &mut plan, ClusterState::Ready);
    scene.open(CLIENT);
    // The host's connection is none of ours: `unknown` holds again.
    let hosts = scene.wan(&Frame::tcp(client(9), SERVICE, flag::ACK));
    assert_eq!(hosts.verdict, Verdict::UnknownFlow);
}

#[test]
#[ignore = "needs root"]
fn flows_of_ours_stay() {
    let mut plan = Plan::default();
    let mut scene = Scene::of(&plan);
    let live = scene.open(CLIENT);
    let begun = scene.syn(client(2));
    set(&mut scene, &mut plan, ClusterState::Pass);

    let there = scene.forwards(false, &live.there(flag::ACK).data(*b"to the backend"));
    assert_eq!(there[26..30], live.snat.0);
    assert_eq!(there[30..34], live.backend.0);
    let back = scene.forwards(true, &live.back(flag::ACK).data(*b"to the client"));
    assert_eq!(back[26..30], VIP);
    assert_eq!(back[30..34], CLIENT.0);
    // A handshake that has begun is finished, its SYN sent again or not.
    scene.forwards(false, &begun.opening());
    scene.handshake(&begun);
    assert_eq!(scene.held(), (0, 2));
    // So is a SYN in the middle of an established flow: its server answers.
    scene.forwards(false, &live.opening());

    // The same client's other connections are the host's all the same.
    let sticky = scene.world.sticky(CLIENT.0).expect("an entry");
    let other = Frame::tcp((CLIENT.0, 41_000), SERVICE, flag::SYN);
    passes(&mut scene, &other);
    assert_eq!(scene.world.sticky(CLIENT.0), Some(sticky));

    set(&mut scene, &mut plan, ClusterState::Ready);
    let again = scene.syn((CLIENT.0, 41_000));
    assert_eq!(again.backend.0, BACKENDS[usize::from(sticky.backend)]);
}

/// A client that begins again with the port of a flow that is over meets the
/// host, with its SYN and with all that follows.
#[test]
#[ignore = "needs root"]
fn a_tuple_that_is_over_becomes_the_hosts() {
    let mut plan = Plan::default();
    let mut scene = Scene::of(&plan);
    let over = scene.open(CLIENT);
    close(&mut scene, &over);
    // Half-open, and given up by its client: another number.
    let begun = scene.syn(client(2));
    set(&mut scene, &mut plan, ClusterState::Pass);
    // What is under way of the old one still arrives.
    let last = over
        .there(flag::ACK)
        .numbers(CLIENT_ISN + 2, SERVER_ISN + 2);
    scene.forwards(false, &last);
    for connection in [over, begun] {
        let syn = connection.opening().numbers(CLIENT_ISN + 100_000, 0);
        let outcome = scene.wan(&syn);
        let found = (outcome.verdict, outcome.action);
        assert_eq!(found, (Verdict::ClusterPass, Action::Pass));
        assert_eq!(outcome.bytes, syn.bytes());
        let ack = connection.there(flag::ACK);
        passes(&mut scene, &ack.numbers(CLIENT_ISN + 100_001, 7));
        passes(&mut scene, &syn);
        assert_eq!(scene.flow(connection.client), None);
        // The port of the old one rests as ever.
        assert_eq!(scene.phase_back(&connection), Some(Phase::Dead));
    }
    assert_eq!(scene.held(), (0, 0));
    assert_eq!(scene.load().resting, 2);
}
