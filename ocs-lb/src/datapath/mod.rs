//! The only user of aya: the programs and maps in the kernel.

pub mod apply;
pub mod attach;
mod down;
pub mod events;
pub mod floor;
pub mod handle;
mod history;
pub mod kill;
pub mod kills;
pub mod load;
pub mod log;
mod look;
pub mod owner;
mod policy;
pub mod read;
pub mod record;
pub mod sticky;
pub mod sweep;
pub mod sysctl;
mod tell;
mod watch;
