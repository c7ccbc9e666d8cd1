//! End-to-end tests: real clients and servers in namespaces, the balancer
//! between, as users start it. They need root:
//! `cargo build -p ocs-lb && cargo test -p ocs-lb-tests --test e2e -- --ignored --test-threads=1`.

mod access;
mod arms;
mod changes;
mod checks;
mod churn;
mod ends;
mod flood;
mod flows;
mod health;
mod host;
mod icmp;
mod lab;
mod limits;
mod links;
mod load;
mod modes;
mod next_hops;
mod operator;
mod outlive;
mod ownership;
mod parity;
mod peers;
mod redispatch;
mod refusals;
mod reload;
mod snat;
mod soak;
mod spread;
mod tuple;
mod unattended;
mod way;
mod wires;
mod world;
