//! An operator's commands, and what the controller decides about dead backends.

use std::time::{Duration, Instant};

use ocs_lb_test_support::client::connect;
use ocs_lb_test_support::topology::{client, vip};

use crate::world::{World, binary, config};

const FAST: &str = "    check: {port: 5061, interval: 200ms, timeout: 200ms, rise: 2, fall: 3}";

fn resets() -> String {
    config([1, 1], FAST).replace("{action: keep}", "{action: reset}")
}

/// Exit code, standard output and standard error of a client command.
fn command(world: &World, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = world.balancer.client(arguments).expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn wait_for_log(world: &World, words: &[&str]) -> Duration {
    let start = Instant::now();
    loop {
        let log = world.balancer.process.log();
        let said = |line: &str| words.iter().all(|word| line.contains(word));
        if log.lines().any(said) {
            return start.elapsed();
        }
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "no {words:?} in\n{log}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs root"]
fn one_dead_backend_is_reset_and_all_of_them_are_not() {
    let mut world = World::new(&resets());
    // Both have been seen to serve.
    std::thread::sleep(Duration::from_secs(1));
    world.stop_server(0);
    let took = wait_for_log(&world, &["flows reset", "ocs/OCS_Node1", "backend_down"]);
    // Detection takes 3 x 200 ms and the checks' own time.
    assert!(took < Duration::from_millis(2000), "{took:?}");
    let log = world.balancer.process.log();
    assert!(!log.contains("are kept"), "{log}");
    // Nobody is left to tell whether this one is dead.
    world.stop_server(1);
    wait_for_log(&world, &["are kept", "ocs/OCS_Node2"]);
    let log = world.balancer.process.log();
    assert!(!log.contains("not done"), "{log}");
}

#[test]
#[ignore = "needs root"]
fn backends_that_fail_together_are_kept() {
    let mut world = World::new(&resets());
    std::thread::sleep(Duration::from_secs(1));
    world.stop_server(0);
    world.stop_server(1);
    wait_for_log(&world, &["are kept", "ocs/OCS_Node1", "our own link"]);
    wait_for_log(&world, &["are kept", "ocs/OCS_Node2", "our own link"]);
    // The first that is back proves that the other one is dead.
    world.start_server(0);
    wait_for_log(&world, &["flows reset", "ocs/OCS_Node2", "backend_down"]);
    let log = world.balancer.process.log();
    let reset_first = |line: &str| line.contains("flows reset") && line.contains("OCS_Node1");
    assert!(!log.lines().any(reset_first), "{log}");
}

#[test]
#[ignore = "needs root"]
fn sticky_entries_are_forgotten() {
    let world = World::new(&config([1, 1], FAST));
    world
        .topology
        .clients
        .block_on(|| async {
            for number in 0..5 {
                connect(client(number), 0, vip(443)).await?.close().await?;
            }
            Ok(())
        })
        .expect("sessions");
    let entries = || {
        let shown = world.balancer.show("sticky").expect("show sticky");
        shown.as_array().expect("a list").len()
    };
    assert_eq!(entries(), 5);

    let (code, _, error) = command(&world, &["clear", "sticky", "ocs"]);
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--yes"), "{error}");
    assert_eq!(entries(), 5, "nothing was done without an answer");

    let one = client(3).to_string();
    let clear = |more: &[&str]| {
        let arguments = [&["clear", "sticky", "ocs", "--yes"], more].concat();
        let (code, output, error) = command(&world, &arguments);
        assert_eq!(code, Some(0), "{error}");
        output
    };
    assert_eq!(clear(&["--client", &one]), "sticky entries forgotten: 1");
    assert_eq!(clear(&["--client", &one]), "sticky entries forgotten: 0");
    let on_first = clear(&["--backend", "OCS_Node1"]);
    let rest = clear(&["--backend", "OCS_Node2"]);
    let count = |text: &str| -> usize {
        let (_, count) = text.rsplit_once(' ').expect("a count");
        count.parse().expect("a number")
    };
    assert_eq!(count(&on_first) + count(&rest), 4);
    assert!(
        count(&on_first) > 0 && count(&rest) > 0,
        "{on_first}, {rest}"
    );
    assert_eq!(entries(), 0);
}

/// In `drain` a client that is known still comes in, in `maint` it does not;
/// its session goes on in both.
#[test]
#[ignore = "needs root"]
fn a_cluster_is_closed_to_clients() {
    let world = World::new(&config([1, 1], FAST));
    let set = |state: &str, more: &[&str]| {
        let arguments = [&["set", "cluster", "ocs", "state", state], more].concat();
        command(&world, &arguments)
    };
    let said = |state: &str| (Some(0), format!("cluster ocs is set to {state}"));
    world
        .topology
        .clients
        .block_on(|| async {
            let mut held = connect(client(0), 0, vip(443)).await?;
            let (code, output, error) = set("drain", &[]);
            assert_eq!((code, output), said("drain"), "{error}");
            let known = connect(client(0), 0, vip(443)).await?;
            assert_eq!(known.server, held.server);
            known.close().await?;
            assert!(connect(client(1), 0, vip(443)).await.is_err());

            let (code, _, error) = set("maint", &[]);
            assert_eq!(code, Some(2), "{error}");
            let (code, output, error) = set("maint", &["--yes"]);
            assert_eq!((code, output), said("maint"), "{error}");
            for number in 0..2 {
                assert!(connect(client(number), 0, vip(443)).await.is_err());
            }
            held.echo(b"still here").await?;
            let (code, output, error) = set("ready", &[]);
            assert_eq!((code, output), said("ready"), "{error}");
            connect(client(1), 0, vip(443)).await?.close().await?;
            held.close().await
        })
        .expect("sessions");
    wait_for_log(
        &world,
        &["operator's word", "uid", "set cluster ocs to maint"],
    );
}

/// What was said of a cluster outlives the datapath, as after a boot, and a
/// time in which nobody had its name.
#[test]
#[ignore = "needs root"]
fn an_operators_word_is_kept() {
    let plain = config([1, 1], FAST);
    let mut world = World::new(&plain);
    let drain = ["set", "cluster", "ocs", "state", "drain"];
    let (code, output, error) = command(&world, &drain);
    assert_eq!(
        (code, &*output),
        (Some(0), "cluster ocs is set to drain"),
        "{error}"
    );
    let state = |world: &World| {
        let shown = world.balancer.show("backends").expect("show backends");
        let cluster = &shown["clusters"][0];
        let said = cluster["said"]["by"].as_str().map(ToOwned::to_owned);
        (cluster["state"].as_str().expect("a state").to_owned(), said)
    };
    let by = "uid 0, process ";
    let (is, said) = state(&world);
    assert_eq!(is, "drain");
    assert!(said.is_some_and(|said| said.starts_with(by)));

    let again = |world: &mut World, config: &str| {
        world.balancer.process.stop().expect("it ends");
        let done = world.balancer.client(&["detach", "--yes"]);
        assert!(done.expect("it runs").status.success());
        world.balancer.configure(config).expect("a file");
        world.balancer.relaunch(&binary()).expect("starts");
    };
    // `/readyz` says that no client comes in.
    let wait = |world: &World| wait_for_log(world, &["ocs_lb::run", "forwarding", "clusters"]);
    again(&mut world, &plain);
    wait(&world);
    let (is, said) = state(&world);
    assert_eq!(is, "drain");
    assert!(said.is_some_and(|said| said.starts_with(by)));
    let refused = world
        .topology
        .clients
        .block_on(|| async { connect(client(0), 0, vip(443)).await });
    assert!(refused.is_err());

    // Nobody has the name for a while.
    again(&mut world, &plain.replace("name: ocs", "name: other"));
    wait(&world);
    assert_eq!(state(&world), ("ready".to_owned(), None));
    wait_for_log(&world, &["is not configured", "ocs"]);
    world.balancer.configure(&plain).expect("a file");
    let (code, _, error) = command(&world, &["reload"]);
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(state(&world).0, "drain");

    let (code, _, error) = command(&world, &["set", "cluster", "ocs", "state", "ready"]);
    assert_eq!(code, Some(0), "{error}");
    again(&mut world, &plain);
    wait(&world);
    assert_eq!(state(&world), ("ready".to_owned(), None));
    world
        .topology
        .clients
        .block_on(|| async { connect(client(0), 0, vip(443)).await?.close().await })
        .expect("a session");
}

/// Where a word cannot be kept, the cluster is set all the same, and whoever
/// said it knows.
#[test]
#[ignore = "needs root"]
fn a_word_that_cannot_be_kept_is_said() {
    let world = World::new(&config([1, 1], FAST));
    let state = world.balancer.config.with_file_name("state");
    std::fs::write(&state, "no directory").expect("a file");
    let (code, _, error) = command(&world, &["set", "cluster", "ocs", "state", "drain"]);
    assert_eq!(code, Some(1), "{error}");
    assert!(
        error.contains("is set to drain, but not over the next boot"),
        "{error}"
    );
    let shown = world.balancer.show("backends").expect("show backends");
    assert_eq!(shown["clusters"][0]["state"], "drain");
}

#[test]
#[ignore = "needs root"]
fn what_is_not_there_is_said() {
    let world = World::new(&config([1, 1], FAST));
    for (arguments, expected) in [
        (
            &["clear", "sticky", "lync", "--yes"][..],
            "there is no cluster lync; there is: ocs",
        ),
        (
            &["set", "cluster", "lync", "state", "drain"],
            "there is no cluster lync; there is: ocs",
        ),
        (
            &["reset", "backend", "ocs/Node1", "--yes"],
            "cluster ocs has no backend Node1; it has: OCS_Node1, OCS_Node2, backup",
        ),
    ] {
        let (code, _, error) = command(&world, arguments);
        assert_eq!(code, Some(1), "{error}");
        assert!(error.ends_with(expected), "{error}");
    }
    let nobody = client(9).to_string();
    let (code, output, error) = command(&world, &["reset", "client", &nobody, "--yes"]);
    assert_eq!((code, &*output), (Some(0), "flows reset: 0"), "{error}");
    let (code, _, error) = command(&world, &["reset", "client", &nobody]);
    assert_eq!(code, Some(2), "{error}");
    let events = world.balancer.show("events").expect("show events");
    assert!(events["events"].is_array(), "{events}");
}
