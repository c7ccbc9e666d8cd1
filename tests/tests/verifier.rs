//! The verifier as a test: every program loads, within a budget.

use aya::programs::Program;
use ocs_lb::datapath::load::{SWEEP, XDP};
use ocs_lb_tests::plan::Plan;
use ocs_lb_tests::prog::load_plan;

/// Instructions the verifier may walk. The kernel's own limit is 1,000,000; a
/// program near it fails on the next kernel, not in review.
const BUDGETS: [(&str, u32); 2] = [(XDP, 250_000), (SWEEP, 5_000)];

#[test]
#[ignore = "needs root"]
fn programs_stay_within_their_budgets() {
    let loaded = load_plan(&Plan::default()).expect("the programs load");
    let mut names: Vec<_> = loaded.ebpf.programs().map(|(name, _)| name).collect();
    names.sort_unstable();
    let mut known: Vec<_> = BUDGETS.iter().map(|(name, _)| *name).collect();
    known.sort_unstable();
    assert_eq!(names, known, "a program without a budget");
    for (name, budget) in BUDGETS {
        let info = loaded.ebpf.program(name).map(Program::info);
        let count = info
            .expect("the program")
            .expect("its info")
            .verified_instruction_count()
            .expect("a kernel that tells");
        println!("{name}: {count} instructions verified of {budget} allowed");
        assert!(count <= budget, "{name}: {count} of {budget}");
    }
}
