//! Who may open a flow: lists of sources, clusters chosen by the source, and
//! the pace of new connections.

use std::net::Ipv4Addr;

use ocs_lb::datapath::load::Clock;
use ocs_lb::model::Prefix;
use ocs_lb::model::lists::{allowed, cells, chosen};
use ocs_lb_common::abi::{EventKind, Reason, RefuseAction, Service, ServiceKey, choice};
use ocs_lb_common::access::Cell;
use ocs_lb_common::address::{Be16, V4};
use ocs_lb_common::limit::interval;
use ocs_lb_common::verdict::Verdict;
use ocs_lb_tests::packet::{End, Frame, flag};
use ocs_lb_tests::plan::{Plan, SERVICE, VIP};
use ocs_lb_tests::prog::World;

use crate::scene::{CLIENT_ISN, Scene, client};

const SECOND: u64 = 1_000_000_000;

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').expect("a length");
    let address: Ipv4Addr = address.parse().expect("an address");
    Prefix::covering(address.into(), len.parse().expect("a number"))
}

fn list(allow: &[&str], deny: &[&str]) -> Vec<Cell<V4>> {
    let of = |texts: &[&str]| texts.iter().map(|text| prefix(text)).collect::<Vec<_>>();
    let ranges = allowed(&of(allow), &of(deny)).expect("IPv4");
    cells(&ranges.expect("not everyone"))
}

fn syn_to(client: End, port: u16) -> Frame {
    Frame::tcp(client, (VIP, port), flag::SYN).numbers(CLIENT_ISN, 0)
}

fn syn(client: End) -> Frame {
    syn_to(client, SERVICE.1)
}

#[test]
#[ignore = "needs root"]
fn deny_within_allow() {
    let mut scene = Scene::of(&Plan {
        access: 1,
        lists: vec![list(
            &["203.0.113.0/24"],
            &["203.0.113.64/26", "203.0.113.7/32"],
        )],
        ..Plan::default()
    });
    for (n, lets_in) in [
        (6, true),
        (7, false),
        (8, true),
        (63, true),
        (64, false),
        (127, false),
        (128, true),
    ] {
        let outcome = scene.wan(&syn(client(n)));
        let wanted = if lets_in {
            Verdict::Redirect
        } else {
            Verdict::Denied
        };
        assert_eq!(outcome.verdict, wanted, "client {n}");
    }
    assert_eq!(
        scene.wan(&syn(([100, 64, 0, 1], 40_000))).verdict,
        Verdict::Denied
    );
    assert_eq!(scene.load().refused_deny, 4);
    let refused = scene.events(EventKind::Refused);
    assert_eq!(refused.len(), 4);
    assert!(refused.iter().all(|e| e.reason == Reason::Deny as u8));
    assert_eq!(refused[0].client.source, V4([203, 0, 113, 7]));
    // A packet of no flow opens none, so it is no refused connection.
    let stray = Frame::tcp(client(7), SERVICE, flag::ACK).numbers(1, 1);
    assert_eq!(scene.wan(&stray).verdict, Verdict::Denied);
    assert_eq!(scene.load().refused_deny, 4);
    assert_eq!(scene.held(), (4, 0));
}

#[test]
#[ignore = "needs root"]
fn a_refusal_by_reset_and_another_list_under_a_flow() {
    let mut plan = Plan {
        access: 1,
        lists: vec![
            list(&["203.0.113.0/24"], &[]),
            list(&[], &["203.0.113.0/24"]),
        ],
        ..Plan::default()
    };
    plan.cluster.refuse_deny = RefuseAction::Reset as u8;
    let mut scene = Scene::of(&plan);
    let connection = scene.open(client(1));
    // Services are switched to the other list.
    plan.access = 2;
    for (key, service) in plan.services() {
        let services = &mut scene.world.loaded.maps.services;
        services.insert(key, service, 0).expect("a write");
    }
    scene.answered(false, &syn(client(2)));
    let reset = Frame::tcp(client(2), SERVICE, flag::RST).numbers(1, 0);
    assert_eq!(scene.wan(&reset).verdict, Verdict::Denied, "never answered");
    scene.forwards(false, &connection.there(flag::ACK).data(*b"I live on"));
    assert_eq!(scene.load().refused_deny, 1);
    // A number without a list lets nobody in.
    plan.access = 9;
    for (key, service) in plan.services() {
        let services = &mut scene.world.loaded.maps.services;
        services.insert(key, service, 0).expect("a write");
    }
    scene.answered(false, &syn(client(3)));
}

#[test]
#[ignore = "needs root"]
fn a_port_has_its_own_list() {
    let mut plan = Plan {
        ports: vec![(5061, 5061)],
        lists: vec![list(&["203.0.113.7/32"], &[])],
        ..Plan::default()
    };
    let key = ServiceKey::tcp(V4(VIP), Be16::new(443));
    plan.services.push((
        key,
        Service {
            access: 1,
            ..Service::of(0, Be16::new(4443))
        },
    ));
    let mut scene = Scene::of(&plan);
    assert_eq!(scene.syn_to(client(7), (VIP, 443)).backend.1, 4443);
    assert_eq!(scene.wan(&syn_to(client(8), 443)).verdict, Verdict::Denied);
    scene.syn(client(8));
}

/// Port 443 by the source: 203.0.113.0/24 is nobody's, of it 64/26 the
/// cluster's, and within that 100 nobody's again.
#[test]
#[ignore = "needs root"]
fn the_longest_prefix_chooses_and_the_rest_is_unserved() {
    let value = u32::from(choice(0).expect("the first"));
    let (wide, mine, one) = (
        prefix("203.0.113.0/24"),
        prefix("203.0.113.64/26"),
        prefix("203.0.113.100/32"),
    );
    let routes = [(&wide, 0), (&mine, value), (&one, 0)];
    let mut plan = Plan {
        lists: vec![cells(&chosen(routes.into_iter()).expect("IPv4"))],
        any: true,
        unserved: 2,
        ..Plan::default()
    };
    for (port, target) in [(444, 4444), (0, 0)] {
        let key = ServiceKey::tcp(V4(VIP), Be16::new(port));
        let chooses = Service {
            access: 1,
            flags: Service::BY_SOURCE,
            ..Service::default()
        };
        plan.services.push((key, chooses));
        let own = Service::of(0, Be16::new(target));
        plan.services.push((key.chosen(value), own));
    }
    let mut scene = Scene::of(&plan);
    for (n, is_mine) in [
        (63, false),
        (64, true),
        (99, true),
        (100, false),
        (127, true),
    ] {
        for (port, target) in [(444, 4444), (8080, 8080)] {
            let frame = syn_to(client(n), port);
            if is_mine {
                let met = scene.syn_to(client(n), (VIP, port));
                assert_eq!(met.backend.1, target, "client {n}");
            } else {
                let verdict = scene.wan(&frame).verdict;
                assert_eq!(verdict, Verdict::UnservedDrop, "client {n}");
            }
        }
    }
    // A port that is served by its number is nobody else's.
    scene.syn(client(1));
    // The backend's RST to a SYN moves the flow, to the same port.
    let first = scene.syn_to((client(64).0, 41_000), (VIP, 8081));
    let seen = scene.refuse(&first);
    assert_eq!(seen.to.1, 8081);
    assert_ne!(seen.to.0, first.backend.0);
    let none = syn_to(client(64), 0);
    assert_eq!(scene.wan(&none).verdict, Verdict::UnservedDrop);
}

/// A world with a clock, at so many a second of one source and of all.
fn paced(per_source: u32, total: u32) -> Scene {
    let mut plan = Plan::default();
    plan.cluster.rate_source = interval(per_source);
    plan.cluster.rate_total = interval(total);
    plan.cluster.rate_burst = 50_000_000;
    Scene {
        world: World::at(&plan, Clock::Test).expect("a world"),
    }
}

#[test]
#[ignore = "needs root"]
fn so_many_of_all_in_a_second() {
    let mut scene = paced(0, 100);
    let mut now = 1 << 40;
    let (mut admitted, mut refused) = (0, 0);
    // 400 a second for five seconds, each from another source.
    for n in 0..2000_u32 {
        now += SECOND / 400;
        scene.world.set_time(now).expect("a time");
        let source = ([203, 0, 113, (n % 250) as u8], 1024 + n as u16);
        match scene.wan(&syn(source)).verdict {
            Verdict::Redirect => admitted += 1,
            Verdict::RateTotal => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    // The rate, and at most its burst of 5 and one.
    assert!((500..=506).contains(&admitted), "{admitted}");
    assert_eq!(scene.load().refused_rate_total, refused);
    assert_eq!(scene.load().refused_rate_source, 0);
    assert_eq!(scene.entries(), 2 * admitted);
}

#[test]
#[ignore = "needs root"]
fn so_many_of_one_source_in_a_second() {
    let mut scene = paced(10, 1000);
    let mut now = 1 << 40;
    let mut admitted = [0_u32; 3];
    for n in 0..900_u32 {
        now += SECOND / 300;
        scene.world.set_time(now).expect("a time");
        let at = (n % 3) as u8;
        match scene.wan(&syn((client(at).0, 1024 + n as u16))).verdict {
            Verdict::Redirect => admitted[usize::from(at)] += 1,
            Verdict::RateSource => {}
            other => panic!("{other:?}"),
        }
    }
    // Three seconds of three sources.
    for count in admitted {
        assert!((29..=32).contains(&count), "{admitted:?}");
    }
    let load = scene.load();
    assert_eq!(
        load.refused_rate_source,
        900 - u64::from(admitted.iter().sum::<u32>())
    );
    assert_eq!(
        load.refused_rate_total, 0,
        "what a source has not, all have"
    );
    let told = scene.told();
    assert!(told.contains(&(EventKind::Refused, Some(Reason::RateSource))));
}

/// A SYN that comes again opens nothing twice, and a refused one costs nothing.
#[test]
#[ignore = "needs root"]
fn only_what_is_let_in_counts() {
    let mut scene = paced(1, 0);
    let mut now = 1 << 40;
    scene.world.set_time(now).expect("a time");
    scene.syn(client(1));
    for _ in 0..10 {
        now += SECOND / 20;
        scene.world.set_time(now).expect("a time");
        scene.forwards(false, &syn(client(1)));
        let other = syn((client(1).0, 41_000));
        assert_eq!(scene.wan(&other).verdict, Verdict::RateSource);
    }
    scene.world.set_time(now + SECOND / 2).expect("a time");
    scene.syn((client(1).0, 41_000));
    assert_eq!(scene.load().refused_rate_source, 10);
}
