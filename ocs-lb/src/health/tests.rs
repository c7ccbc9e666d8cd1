//! Checks against real listeners on loopback.

use std::net::{Ipv4Addr, TcpListener};

use super::*;
use crate::model::test_check;

fn target(cluster: u16, backend: u16, port: u16) -> Target {
    Target {
        cluster,
        backend,
        name: format!("c{cluster}/b{backend}"),
        address: Ipv4Addr::LOCALHOST.into(),
        check: Check {
            port,
            interval: Duration::from_millis(10),
            timeout: Duration::from_secs(1),
            ..test_check()
        },
        source: None,
        ports: (20400, 20499),
    }
}

#[test]
fn a_server_of_several_clusters_is_checked_once() {
    let mut slower = target(2, 0, 1);
    slower.check.interval = Duration::from_secs(9);
    let mut elsewhere = target(3, 0, 1);
    elsewhere.source = Some(Ipv4Addr::LOCALHOST.into());
    let groups = group(vec![
        target(0, 0, 1),
        target(0, 1, 2),
        target(1, 4, 1),
        slower,
        elsewhere,
    ]);
    let names: Vec<Vec<_>> = groups
        .iter()
        .map(|group| group.iter().map(|t| t.name.as_str()).collect())
        .collect();
    assert_eq!(
        names,
        [
            vec!["c0/b0", "c1/b4"],
            vec!["c0/b1"],
            vec!["c2/b0"],
            vec!["c3/b0"]
        ]
    );
}

#[tokio::test]
async fn facts_follow_the_server() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let (sender, mut facts) = mpsc::channel(16);
    let targets = vec![target(0, 1, port), target(7, 2, port)];
    let mut checks = Checks::new(sender);
    checks.set(targets, |_| None);
    assert_eq!(checks.tasks.len(), 1);

    let (a, b) = (facts.recv().await.unwrap(), facts.recv().await.unwrap());
    assert_eq!((a.cluster, a.backend, b.cluster, b.backend), (0, 1, 7, 2));
    assert_eq!(
        (a.healthy, a.transition, a.status.as_str()),
        (true, false, "UP")
    );
    assert_eq!(
        (&a.result, a.duration),
        (&CheckResult::Ok(Layer::Connect, None), b.duration)
    );

    drop(server);
    let down = loop {
        let fact = facts.recv().await.unwrap();
        if fact.transition {
            break fact;
        }
    };
    assert_eq!((down.healthy, down.status.as_str()), (false, "DOWN"));
    assert_eq!(down.result, CheckResult::Refused);

    checks.set(Vec::new(), |_| None);
    while checks.tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn what_stays_is_not_disturbed() {
    let (sender, mut facts) = mpsc::channel(16);
    let mut checks = Checks::new(sender);
    let (kept, gone, new) = (target(0, 1, 1), target(0, 2, 2), target(0, 3, 3));
    checks.set(vec![kept.clone(), gone], |_| None);
    let task = checks.servers[0].task.id();
    checks.set(vec![new, kept], |_| Some(false));
    assert_eq!(checks.servers[1].task.id(), task);
    let mut downs = Vec::new();
    while downs.len() < 4 {
        let fact = facts.recv().await.expect("a fact");
        downs.push((fact.backend, fact.status));
    }
    assert!(downs.iter().any(|(backend, _)| *backend == 1));
    let of_new = downs.iter().filter(|(backend, _)| *backend == 3);
    assert!(of_new.clone().count() > 0);
    // It was down before, and one failed check more changes nothing.
    assert!(of_new.clone().all(|(_, status)| status == "DOWN"));
}

#[tokio::test]
async fn live_failures_take_a_backend_down() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let (sender, mut facts) = mpsc::channel(16);
    let mut observed = target(0, 1, port);
    observed.check.observe = true;
    observed.check.interval = Duration::from_secs(60);
    let deaf = Target {
        backend: 2,
        check: Check {
            observe: false,
            ..observed.check.clone()
        },
        ..observed.clone()
    };
    let mut checks = Checks::new(sender);
    checks.set(vec![observed, deaf], |_| None);
    let first = facts.recv().await.unwrap();
    assert_eq!((first.backend, first.healthy), (1, true));
    checks.observe(0, 2, 3);
    checks.observe(0, 1, 2);
    checks.observe(0, 1, 1);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let fact = facts.recv().await.unwrap();
        assert_eq!((fact.backend, fact.result.label()), (1, "observed"));
        seen.push((fact.healthy, fact.transition));
    }
    assert_eq!(seen, [(true, false), (true, false), (false, true)]);
}

#[tokio::test]
async fn ends_when_nobody_listens() {
    let (sender, facts) = mpsc::channel(1);
    drop(facts);
    let mut checks = Checks::new(sender);
    checks.set(vec![target(0, 0, 1)], |_| None);
    while checks.tasks.join_next().await.is_some() {}
}
