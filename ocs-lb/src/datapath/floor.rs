//! What the packet bench compares the datapath with. The product does not
//! refer to it, so the linker leaves it out.

use aya::include_bytes_aligned;

/// The object with the programs `empty`, `floor` and `outer`.
pub static OBJECT: &[u8] = include_bytes_aligned!(env!("OCS_LB_FLOOR_OBJECT"));
