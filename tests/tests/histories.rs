//! Random histories on the host's model, and the same ones through the loaded
//! program.

use std::time::Instant;

use ocs_lb::datapath::load::Clock;
use ocs_lb_tests::history::{Step, comparable, live, plan, shrink};
use ocs_lb_tests::kmsg::KernelLog;
use ocs_lb_tests::net::Net;
use ocs_lb_tests::packet::dump;
use ocs_lb_tests::prog::World;

/// Histories of one run; `OCS_LB_HISTORIES` asks for another number.
const HISTORIES: u64 = 100_000;
/// Seed of the first; `OCS_LB_SEED` asks for another one.
const SEED: u64 = 1;
/// Events of one history.
const LENGTH: usize = 80;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn show(steps: &[Step]) -> String {
    let line = |step: &Step| match step {
        Step::Sweep { at } => format!("{at}: sweep\n"),
        Step::Frame {
            at,
            from_lan,
            bytes,
        } => format!("{at}: from lan {from_lan}\n{}", dump(bytes)),
    };
    steps.iter().map(line).collect()
}

#[test]
fn nothing_is_lost_crossed_or_left() {
    let net = Net { wan: 2, lan: 3 };
    let (seed, count) = (
        number("OCS_LB_SEED", SEED),
        number("OCS_LB_HISTORIES", HISTORIES),
    );
    println!("OCS_LB_SEED={seed} OCS_LB_HISTORIES={count}");
    let start = Instant::now();
    let (mut frames, mut moved, mut early, mut pushed) = (0u64, 0, 0, 0);
    for seed in seed..seed + count {
        match live(seed, LENGTH, net) {
            Ok(history) => {
                let load = &history.host.load;
                frames += history.steps.len() as u64;
                moved += load.silences.iter().sum::<u64>();
                early += load.reused_early;
                pushed += load.pushed_out;
            }
            Err((error, steps)) => {
                let few = shrink(steps, net);
                panic!("history {seed}: {error}\n{}", show(&few));
            }
        }
    }
    println!(
        "{count} histories, {frames} steps, {moved} moves, {early} ports again, {pushed} pushed out, {:.1} s",
        start.elapsed().as_secs_f64()
    );
    // What the histories are for happens in them.
    assert!(count < 1000 || moved.min(early).min(pushed) > count / 50);
}

#[test]
#[ignore = "needs root"]
fn the_program_does_the_same() {
    let (seed, count) = (
        number("OCS_LB_SEED", SEED),
        number("OCS_LB_HISTORIES", HISTORIES),
    );
    println!("OCS_LB_SEED={seed} OCS_LB_HISTORIES={count}");
    let mut world = World::at(&plan(), Clock::Test).expect("a world");
    let mut kernel = KernelLog::listen().expect("the kernel's log");
    let net = world.net;
    let start = Instant::now();
    let mut steps = 0u64;
    for seed in seed..seed + count {
        let history = match live(seed, LENGTH, net) {
            Ok(history) => history,
            Err((error, _)) => panic!("history {seed}: {error}"),
        };
        world.forget().expect("empty maps");
        for (at, (step, expected)) in history.steps.iter().zip(&history.outcomes).enumerate() {
            steps += 1;
            match (step, expected) {
                (
                    Step::Frame {
                        at: now,
                        from_lan,
                        bytes,
                    },
                    Some(expected),
                ) => {
                    world.set_time(*now).expect("the time is set");
                    let ifindex = if *from_lan { net.lan } else { net.wan };
                    let (action, after) = world.run_uncounted(ifindex, bytes).expect("a run");
                    assert!(
                        action == expected.action && after == expected.bytes,
                        "history {seed}, step {at}: {action:?}, expected {:?} ({:?})\n{}{}\n{}",
                        expected.action,
                        expected.verdict,
                        dump(bytes),
                        dump(&after),
                        dump(&expected.bytes)
                    );
                }
                (Step::Sweep { at: now }, None) => {
                    world.set_time(*now).expect("the time is set");
                    world.sweep().expect("a sweep");
                }
                _ => panic!("a step without its outcome"),
            }
        }
        let load = world.load().expect("counts");
        assert!(load == history.host.load, "history {seed}: other counts");
        assert_eq!(
            comparable(&world.flows().expect("flows")),
            comparable(&history.host.flows),
            "history {seed}"
        );
        kernel.check().expect("no warning");
    }
    println!(
        "{count} histories, {steps} steps, {:.1} s",
        start.elapsed().as_secs_f64()
    );
}
