//! The verifier as a test: every program loads, within a budget.

use aya::programs::Program;
use ocs_lb::config;
use ocs_lb::datapath::load::load;
use ocs_lb::model::LogLevel;
use ocs_lb::model::bill::bill;
use ocs_lb::model::sizes::Sizes;
use ocs_lb_tests::budget::{budget, names};
use ocs_lb_tests::plan::Plan;
use ocs_lb_tests::prog::load_plan;

#[test]
#[ignore = "needs root"]
fn programs_stay_within_their_budgets() {
    let loaded = load_plan(&Plan::default()).expect("the programs load");
    let mut found: Vec<_> = loaded.ebpf.programs().map(|(name, _)| name).collect();
    found.sort_unstable();
    let mut known: Vec<_> = names().collect();
    known.sort_unstable();
    assert_eq!(found, known, "a program without a budget");
    for name in known {
        let info = loaded.ebpf.program(name).map(Program::info);
        let count = info
            .expect("the program")
            .expect("its info")
            .verified_instruction_count()
            .expect("a kernel that tells");
        let budget = budget(name).expect("just listed");
        println!("{name}: {count} instructions verified of {budget} allowed");
        assert!(count <= budget, "{name}: {count} of {budget}");
    }
}

/// What `check` says a table costs is what the kernel accounts for it.
#[test]
#[ignore = "needs root"]
fn the_bill_is_what_the_kernel_takes() {
    let text = "version: 1
clusters:
  - name: a
    vips: [192.0.2.1]
    ports: [443, 5061]
    sticky: {size: 64k}
    backends: [{name: b, address: 198.51.100.1}]
";
    let model = config::parse(text, "test.yaml").expect("valid").model;
    let loaded = load(&Sizes::of(&model), LogLevel::Info).expect("the programs load");
    let bill = bill(&model, (32_768, 60_999));
    for row in &bill.maps {
        let kernel = loaded.bill.iter().find(|map| map.name == row.map);
        let kernel = kernel.expect(row.map);
        assert_eq!(kernel.capacity, row.entries, "{}", row.map);
        // Per-CPU lists and headers are left out, which counts for small maps.
        let slack = row.bytes / 10 + 16_384;
        assert!(
            kernel.bytes.abs_diff(row.bytes) <= slack,
            "{}: {} bytes, not {}",
            row.map,
            kernel.bytes,
            row.bytes
        );
    }
    let all: u64 = loaded.bill.iter().map(|map| map.bytes).sum();
    assert!(
        bill.bytes * 10 > all * 9,
        "a large table is missing: {all} bytes"
    );
}
