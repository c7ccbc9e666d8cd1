//! Values from a fuzzer's bytes; zeros where they have run out.

/// What is left of the bytes.
pub struct Take<'a>(pub &'a [u8]);

impl<'a> Take<'a> {
    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let (head, rest) = self.0.split_at(self.0.len().min(N));
        array[..head.len()].copy_from_slice(head);
        self.0 = rest;
        array
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// The next two bytes, in network order.
    pub fn half(&mut self) -> u16 {
        u16::from_be_bytes(self.array())
    }

    /// The next four bytes, in network order.
    pub fn word(&mut self) -> u32 {
        u32::from_be_bytes(self.array())
    }

    /// Everything else.
    pub const fn rest(self) -> &'a [u8] {
        self.0
    }
}
