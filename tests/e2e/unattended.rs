//! A datapath whose controller stands still. About 35 s.

use std::time::Duration;

use nix::sys::signal::Signal;
use ocs_lb_test_support::topology::vip;

use crate::churn::{churn, http_config, nginx};
use crate::peers::has;
use crate::world::{Scratch, World, clients};

/// Resting flows that the only cluster may keep.
const RESTING: usize = 65_536;

/// Churn with the controller stopped for `time`.
pub fn stopped(time: Duration) {
    if !has("nginx") {
        return;
    }
    let world = World::new(&http_config("1024-65535"));
    let scratch = Scratch::new();
    let _servers = nginx(&world.topology, &scratch);
    let namespace = &world.topology.clients;
    let before = churn(namespace, &clients(), vip(80), Duration::from_secs(3), None);
    before.say("with the controller");
    let process = &world.balancer.process;
    process.signal(Signal::SIGSTOP).expect("it runs");
    let mut entries = Vec::new();
    let mut failed = std::collections::BTreeMap::new();
    for _ in 0..10 {
        let part = churn(namespace, &clients(), vip(80), time / 10, None);
        part.say("without");
        failed.extend(part.failed);
        entries.push(world.flow_entries());
    }
    process.signal(Signal::SIGCONT).expect("it is there");
    println!("entries of the flow table: {entries:?}");
    let most = entries.iter().max().copied().unwrap_or_default();
    assert!(failed.is_empty(), "{failed:?}");
    // Both directions of each, and what opens and closes meanwhile.
    assert!(most <= 2 * (RESTING + 1000), "{most} entries");
    std::thread::sleep(Duration::from_millis(3500));
    let (live, pending, _) = world.counts();
    assert_eq!((live, pending), (0, 0), "once it goes on");
    assert!(world.recount().is_empty());
    let after = churn(namespace, &clients(), vip(80), Duration::from_secs(2), None);
    after.say("with it again");
    assert!(after.failed.is_empty(), "{:?}", after.failed);
}

#[test]
#[ignore = "needs root"]
fn forwarding_goes_on_without_a_controller() {
    stopped(Duration::from_secs(20));
}
