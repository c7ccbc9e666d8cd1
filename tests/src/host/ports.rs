//! SNAT ports on the host: the bitmaps over cells.

use std::cell::Cell;

use ocs_lb_common::abi::FlowKey;
use ocs_lb_common::address::V4;
use ocs_lb_common::resting;
use ocs_lb_common::snat::{PortWords, WORDS, release};

use super::{Datapath, snat_key};

/// Ports in use towards one destination.
pub struct Ports {
    words: Vec<Cell<u64>>,
    /// Where the next search for a free port starts.
    pub cursor: Cell<u16>,
    /// Where the next search for a resting port starts.
    pub rest_cursor: Cell<u16>,
    /// Ports that rest.
    pub resting: Cell<u32>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            words: vec![Cell::new(0); WORDS],
            cursor: Cell::new(0),
            rest_cursor: Cell::new(0),
            resting: Cell::new(0),
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

impl Ports {
    /// Whether a port is in use.
    pub fn is_used(&self, port: u16) -> bool {
        self.load(usize::from(port) >> 6) >> (port & 63) & 1 == 1
    }
}

impl Datapath {
    /// The port of a flow that is over rests.
    pub(super) fn rest(&mut self, tuple: &FlowKey<V4>) {
        if let Some(ports) = self.ports.get(&snat_key(tuple))
            && resting::rest(ports, tuple.source_port.get())
        {
            ports.resting.set(ports.resting.get() + 1);
            self.load.resting += 1;
        }
    }

    /// It does no longer.
    pub(super) fn unrest(&mut self, tuple: &FlowKey<V4>) {
        if let Some(ports) = self.ports.get(&snat_key(tuple))
            && resting::unrest(ports, tuple.source_port.get())
        {
            ports.resting.set(ports.resting.get() - 1);
            self.load.resting -= 1;
        }
    }

    /// The port is free.
    pub(super) fn release(&mut self, tuple: &FlowKey<V4>) {
        self.unrest(tuple);
        if let Some(ports) = self.ports.get(&snat_key(tuple)) {
            release(ports, tuple.source_port.get());
        }
    }

    /// Whether a tuple's port is in use.
    pub fn is_used(&self, tuple: &FlowKey<V4>) -> bool {
        self.ports
            .get(&snat_key(tuple))
            .is_some_and(|ports| ports.is_used(tuple.source_port.get()))
    }

    /// Ports in use, over all destinations.
    pub fn used(&self) -> usize {
        let of = |ports: &Ports| -> usize { (0..=u16::MAX).filter(|p| ports.is_used(*p)).count() };
        self.ports.values().map(of).sum()
    }
}
