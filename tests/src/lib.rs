//! What the tests of the loaded programs and the benches share.

pub mod budget;
pub mod history;
pub mod host;
pub mod icmp;
pub mod invariant;
pub mod kmsg;
pub mod net;
pub mod packet;
pub mod plan;
pub mod prog;
pub mod random;
pub mod repeat;
