//! Records of ring buffers.

use aya::Pod;

/// A value from a record's bytes; `None` where they are too few.
pub fn read<T: Pod>(bytes: &[u8]) -> Option<T> {
    if bytes.len() < size_of::<T>() {
        return None;
    }
    // SAFETY: enough bytes, and any of them are a value of a plain type.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enough_bytes_at_any_address() {
        let bytes = [9, 1, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(read::<[u32; 2]>(&bytes[1..]), Some([1, 2]));
        assert_eq!(read::<[u32; 2]>(&bytes[2..]), None);
    }
}
