//! What a packet does to its flow, as `flow.rs` of the programs.

use ocs_lb_common::abi::{Flow, FlowKey, Reason, RefuseAction};
use ocs_lb_common::address::V4;
use ocs_lb_common::parse::Packet;
use ocs_lb_common::rest::retire;
use ocs_lb_common::select;
use ocs_lb_common::sweep::{Due, due, held};
use ocs_lb_common::track::{Count, Direction, Phase, StateWord, Step, establish, start, step};
use ocs_lb_common::verdict::Verdict;
use ocs_lb_common::wire::{SliceFrame, syn_options};

use super::{Datapath, Next, Now, obstacle, sticky_key};

/// Ticks without a packet after which one is looked at more closely.
pub const PAUSE: u32 = 1024;

/// Both entries of a flow, copied, and their keys.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    pub key: FlowKey<V4>,
    pub reverse_key: FlowKey<V4>,
    pub forward: Flow<V4>,
    pub reverse: Flow<V4>,
}

impl Pair {
    pub fn tuple(&self) -> FlowKey<V4> {
        self.reverse_key.reversed()
    }

    pub fn set(&mut self, word: StateWord) {
        self.forward.state = word;
        self.reverse.state = word;
    }
}

impl Datapath {
    /// Writes a pair back.
    pub(super) fn put(&mut self, pair: &Pair) {
        self.flows.insert(pair.key, pair.forward);
        self.flows.insert(pair.reverse_key, pair.reverse);
    }

    /// What the end of a flow owes.
    pub(super) fn close(&mut self, pair: &Pair, count: Count, reason: Reason, now: Now) {
        let backend = pair.forward.backend;
        self.apply(backend, count);
        self.rest(&pair.tuple());
        if matches!(count, Count::DropPending) {
            if reason == Reason::ConnectTimeout {
                self.pending_sticky.remove(&sticky_key(pair.key.source));
                if !pair.forward.state.has(StateWord::SYN_ACK) {
                    self.load.silences[usize::from(backend)] += 1;
                }
            }
            return;
        }
        if matches!(count, Count::DropLive) {
            if reason == Reason::ServerReset {
                self.load.resets[usize::from(backend)] += 1;
            }
            if reason as u8 > Reason::ServerReset as u8 {
                return;
            }
            if let Some(known) = self.sticky.get_mut(&sticky_key(pair.key.source))
                && known.backend == backend
            {
                known.last_used_ns = now.ns;
            }
        }
    }

    /// Ends a flow; its packets are answered from now on.
    pub(super) fn kill(&mut self, pair: &mut Pair, reason: Reason, now: Now) {
        let count = held(pair.forward.state.phase());
        let word = pair.forward.state;
        pair.set(word.with_phase(Phase::Killed).with(StateWord::TOLD));
        pair.forward.last_seen = now.ticks;
        self.put(pair);
        self.close(pair, count, reason, now);
    }

    pub(super) fn change(&mut self, bytes: &mut [u8], packet: &Packet<V4>, now: Now) -> Next {
        let Some(entry) = self.flows.get(&packet.key).copied() else {
            return Next::Open;
        };
        let is_reverse = entry.is_reverse();
        if is_reverse && entry.state.phase() == Phase::Dead {
            return Next::Open;
        }
        if let Some(obstacle) = obstacle(packet, &self.hop(entry.next_hop)) {
            let other = self.flows.get(&entry.peer_key());
            return other.map_or(Verdict::Race.into(), |other| {
                Next::Tell(obstacle, other.next_hop)
            });
        }
        let peer_key = entry.peer_key();
        let Some(other) = self.flows.get(&peer_key).copied() else {
            return Verdict::Race.into();
        };
        let (direction, mut pair) = if is_reverse {
            let pair = Pair {
                key: peer_key,
                reverse_key: packet.key,
                forward: other,
                reverse: entry,
            };
            (Direction::Reverse, pair)
        } else {
            let pair = Pair {
                key: packet.key,
                reverse_key: peer_key,
                forward: entry,
                reverse: other,
            };
            (Direction::Forward, pair)
        };
        self.turn(bytes, packet, &mut pair, direction, now)
    }

    fn turn(
        &mut self,
        bytes: &mut [u8],
        packet: &Packet<V4>,
        pair: &mut Pair,
        direction: Direction,
        now: Now,
    ) -> Next {
        let word = pair.forward.state;
        let (seen, answered) = (pair.forward.last_seen, pair.reverse.last_seen);
        let back = match direction {
            Direction::Forward => pair.reverse.next_hop,
            Direction::Reverse => pair.forward.next_hop,
        };
        match due(word, seen, answered, now.ticks, &self.cluster) {
            Due::Kill => {
                self.kill(pair, Reason::Idle, now);
                return Next::Answer(back);
            }
            Due::End(count) => {
                pair.set(word.with_phase(Phase::Dead));
                pair.forward.last_seen = now.ticks;
                self.put(pair);
                if count.is_end() {
                    self.close(pair, count, Reason::ConnectTimeout, now);
                }
                return Next::Again;
            }
            _ => {}
        }
        let (own, peer) = match direction {
            Direction::Reverse => (pair.reverse.side(), pair.forward.side()),
            Direction::Forward => (pair.forward.side(), pair.reverse.side()),
        };
        let (next, what) = match step(word, direction, &packet.segment, own, peer) {
            Step::Keep => {
                pair.reverse.state = word;
                self.put(pair);
                return Next::Send;
            }
            Step::Retry => return self.retry(pair, word, now),
            Step::Refused(next, what) => {
                if let Some(next) = self.refused(packet, pair, word) {
                    return next;
                }
                (next, what)
            }
            Step::Swap(next, what) => (next, what),
            Step::Replace => {
                self.replace(pair, word, now);
                return Next::Open;
            }
            Step::Answer => return Next::Answer(back),
            Step::Gone => return Next::Open,
        };
        if what == Count::Promote && !select::promotes(self.held(), self.cluster.max_connections) {
            self.load.refused_limit += 1;
            return if self.cluster.refuse_limit == RefuseAction::Reset as u8 {
                Next::Answer(back)
            } else {
                Verdict::Limit.into()
            };
        }
        pair.set(next);
        self.changed(bytes, packet, pair, word, what, now);
        Next::Send
    }

    fn changed(
        &mut self,
        bytes: &mut [u8],
        packet: &Packet<V4>,
        pair: &mut Pair,
        word: StateWord,
        what: Count,
        now: Now,
    ) {
        let next = pair.forward.state;
        let backend = pair.forward.backend;
        match what {
            Count::None => {
                if !word.has(StateWord::SYN_ACK) && next.has(StateWord::SYN_ACK) {
                    let frame = SliceFrame(bytes);
                    let options = syn_options(&frame, packet.tcp_offset, packet.tcp_header_len);
                    start(&mut pair.reverse, &packet.segment, options.scale);
                    self.load.answered[usize::from(backend)] = now.ticks;
                }
            }
            Count::Promote => {
                establish(&mut pair.forward, now.ticks, &packet.segment);
                self.apply(backend, what);
                if self.cluster.sticky != 0 {
                    self.promote(pair.key.source, backend, now);
                }
            }
            Count::Revive => {
                self.apply(backend, what);
                self.unrest(&pair.tuple());
            }
            Count::DropPending | Count::DropLive => {
                if !word.has(StateWord::SYN_ACK) && next.has(StateWord::SERVER_RESET) {
                    self.load.refusals[usize::from(backend)] += 1;
                }
                self.close(pair, what, Reason::of_end(next), now);
            }
        }
        self.put(pair);
    }

    /// Leaves the record of a port's rest in place of a flow.
    fn replace(&mut self, pair: &mut Pair, word: StateWord, now: Now) {
        let what = held(word.phase());
        if what.is_end() {
            self.close(pair, what, Reason::Replaced, now);
        }
        let backend = usize::from(pair.forward.backend);
        self.load.bytes_in[backend] += pair.forward.bytes;
        self.load.bytes_out[backend] += pair.reverse.bytes;
        retire(&mut pair.reverse, &pair.forward, word, now.ticks);
        self.flows.insert(pair.reverse_key, pair.reverse);
        self.flows.remove(&pair.key);
    }

    /// Deletes both entries of a flow; with `keep_port` the port stays in use.
    pub(super) fn delete(&mut self, key: &FlowKey<V4>, keep_port: bool) {
        let Some(forward) = self.flows.remove(key) else {
            return;
        };
        let reverse_key = forward.peer_key();
        let out = self.flows.remove(&reverse_key).map_or(0, |flow| flow.bytes);
        self.free(&reverse_key.reversed(), keep_port);
        self.load.bytes_in[usize::from(forward.backend)] += forward.bytes;
        self.load.bytes_out[usize::from(forward.backend)] += out;
    }

    /// Frees a port, or only ends its rest.
    pub(super) fn free(&mut self, tuple: &FlowKey<V4>, keep_port: bool) {
        if keep_port {
            self.unrest(tuple);
        } else {
            self.release(tuple);
        }
    }
}
