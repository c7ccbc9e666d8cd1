//! libFuzzer's entry.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ocs_lb_fuzz_targets::wire::run(bytes));
