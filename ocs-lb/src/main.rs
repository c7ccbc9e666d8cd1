//! Entry point of the `ocs-lb` binary.

fn main() {}
