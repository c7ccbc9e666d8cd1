//! SNAT ports on the host: the bitmap over cells.

use std::cell::Cell;

use ocs_lb_common::snat::{PortWords, WORDS};

/// Ports in use towards one destination.
pub struct Ports {
    words: Vec<Cell<u64>>,
    /// Where the next search starts.
    pub cursor: Cell<u16>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            words: vec![Cell::new(0); WORDS],
            cursor: Cell::new(0),
        }
    }
}

impl PortWords for Ports {
    fn load(&self, word: usize) -> u64 {
        self.words[word].get()
    }

    fn fetch_or(&self, word: usize, bits: u64) -> u64 {
        self.words[word].replace(self.words[word].get() | bits)
    }

    fn fetch_and(&self, word: usize, bits: u64) -> u64 {
        self.words[word].replace(self.words[word].get() & bits)
    }
}
