//! The only user of aya: the programs and maps in the kernel.

pub mod load;
