//! A second try, as `redispatch.rs` of the programs.

use ocs_lb_common::abi::{Flow, Pending, Reason, ServiceKey, TRIED};
use ocs_lb_common::address::V4;
use ocs_lb_common::classify::service_of;
use ocs_lb_common::icmp::Error;
use ocs_lb_common::parse::Packet;
use ocs_lb_common::redispatch::{
    self, Retry, add, frame_len_ipv4, is_of, is_unanswered, may_retry, may_retry_unreachable,
    options_ipv4, packet_ipv4, write_ipv4,
};
use ocs_lb_common::rest::{Opening, retire};
use ocs_lb_common::track::{Count, Phase, StateWord};
use ocs_lb_common::verdict::Verdict;
use ocs_lb_common::wire::{SliceFrame, strip_timestamp};

use super::change::Pair;
use super::place::Wanted;
use super::{Datapath, Next, Now};

/// A flow that wants another place.
pub(super) struct Moving {
    pair: Pair,
    word: StateWord,
    reason: Reason,
    blamed: bool,
    pending: Pending<V4>,
    tried: [u64; TRIED],
    target_port: ocs_lb_common::address::Be16,
}

impl Datapath {
    fn place(&mut self, pair: &Pair, word: StateWord) -> Option<&mut Pending<V4>> {
        let at = pair.forward.cold.checked_sub(1)? as usize;
        let place = self.ring.get_mut(at)?.as_mut()?;
        is_of(place, &pair.key, word).then_some(place)
    }

    pub(super) fn retry(&mut self, pair: &Pair, word: StateWord, now: Now) -> Next {
        let answered = self.load.answered[usize::from(pair.forward.backend)];
        let after = self.cluster.redispatch_after;
        let Some(place) = self.place(pair, word) else {
            return Next::Send;
        };
        let retry = redispatch::retry(place, now.ticks, answered, after);
        let pending = *place;
        match retry {
            Retry::Stay => Next::Send,
            Retry::Move => self
                .describe(pair, word, pending, Reason::Silent)
                .unwrap_or(Next::Send),
        }
    }

    pub(super) fn refused(
        &mut self,
        packet: &Packet<V4>,
        pair: &Pair,
        word: StateWord,
    ) -> Option<Next> {
        let pending = *self.place(pair, word)?;
        if !may_retry(&pending, &packet.segment) {
            return None;
        }
        self.describe(pair, word, pending, Reason::Refused)
    }

    pub(super) fn unreachable(&mut self, error: &Error, entry: &Flow<V4>) -> Option<Next> {
        if !entry.is_reverse() || !error.is_unreachable() {
            return None;
        }
        let key = entry.peer_key();
        let forward = *self.flows.get(&key)?;
        let reverse_key = forward.peer_key();
        let pair = Pair {
            key,
            reverse_key,
            forward,
            reverse: *self.flows.get(&reverse_key)?,
        };
        let word = forward.state;
        let pending = *self.place(&pair, word)?;
        if !is_unanswered(word) || !may_retry_unreachable(&pending, error.seq) {
            return None;
        }
        self.describe(&pair, word, pending, Reason::Unreachable)
    }

    fn describe(
        &self,
        pair: &Pair,
        word: StateWord,
        pending: Pending<V4>,
        reason: Reason,
    ) -> Option<Next> {
        let service = ServiceKey::tcp(pair.key.destination, pair.key.destination_port);
        let service = service_of(service, pair.forward.cluster, |key| {
            self.services.get(key).copied()
        })?;
        let blamed = reason != Reason::Refused || pending.early == 0;
        let mut tried = pending.tried;
        if blamed {
            add(&mut tried, pair.forward.backend);
        }
        Some(Next::Move(Box::new(Moving {
            pair: *pair,
            word,
            reason,
            blamed,
            pending,
            tried,
            target_port: service.target(pair.key.destination_port),
        })))
    }

    pub(super) fn relocate(&mut self, bytes: &mut Vec<u8>, moving: &Moving, now: Now) -> Next {
        let mut pair = moving.pair;
        let (pending, before) = (moving.pending, pair.forward.backend);
        let timestamp = pair.forward.timestamp;
        let mut wanted = Wanted {
            key: pair.key,
            tried: moving.tried,
            opening: Opening {
                isn: pending.isn,
                timestamp: (timestamp != 0).then_some(timestamp),
            },
            target_port: moving.target_port,
        };
        let refused = moving.reason == Reason::Refused;
        let Ok(found) = self.find(&mut wanted, now) else {
            if moving.reason == Reason::Unreachable {
                return Next::Stay;
            }
            if !refused {
                return Next::Send;
            }
            pair.set(
                moving
                    .word
                    .with_phase(Phase::Reset)
                    .with(StateWord::SERVER_RESET),
            );
            self.put(&pair);
            if moving.blamed {
                self.load.refusals[usize::from(before)] += 1;
            }
            self.close(&pair, Count::DropPending, Reason::ServerReset, now);
            return Next::Send;
        };
        self.apply(before, Count::DropPending);
        if refused {
            self.load.moved_refused += 1;
        } else {
            self.load.moved_silent += 1;
        }
        if !refused {
            self.load.silences[usize::from(before)] += 1;
        } else if moving.blamed {
            self.load.refusals[usize::from(before)] += 1;
        }
        let told = if refused { StateWord::SERVER_RESET } else { 0 };
        retire(
            &mut pair.reverse,
            &pair.forward,
            moving.word.with(told),
            now.ticks,
        );
        self.flows.insert(pair.reverse_key, pair.reverse);
        self.rest(&pair.tuple());

        bytes.resize(frame_len_ipv4(&pending), 0);
        let packet = packet_ipv4(&pending);
        if write_ipv4(&mut SliceFrame(bytes), &pending).is_none() {
            return Verdict::Malformed.into();
        }
        let options = options_ipv4(&pending, timestamp);
        if found.strip {
            let frame = &mut SliceFrame(bytes);
            let _ = strip_timestamp(frame, packet.tcp_offset, options.timestamp_at);
        }
        let at = pair.forward.cold;
        let back = pair.reverse.next_hop;
        let mut again = Pending {
            tried: wanted.tried,
            sent: now.ticks,
            retries: 0,
            moves: pending.moves.saturating_add(1),
            ..pending
        };
        again.early = u8::from(found.early);
        self.write(&packet, &options, &wanted, &found, (back, at), again, now);
        let key = wanted.key;
        if let Some(forward) = self.flows.get_mut(&key) {
            forward.last_seen = pending.birth;
            let reverse_key = forward.peer_key();
            if let Some(reverse) = self.flows.get_mut(&reverse_key) {
                reverse.cold = pending.birth.0;
            }
        }
        Next::Send
    }
}
