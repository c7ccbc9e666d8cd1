//! What the tests of the loaded programs and the packet bench share.

pub mod budget;
pub mod history;
pub mod host;
pub mod net;
pub mod packet;
pub mod plan;
pub mod prog;
pub mod random;
