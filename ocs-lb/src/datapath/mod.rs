//! The only user of aya: the programs and maps in the kernel.

pub mod apply;
pub mod attach;
pub mod events;
pub mod floor;
pub mod handle;
pub mod kill;
pub mod kills;
pub mod load;
pub mod log;
mod look;
pub mod owner;
pub mod read;
pub mod sweep;
pub mod sysctl;
