//! What must hold after every step of a history.

use std::collections::HashMap;

use ocs_lb_common::abi::FlowKey;
use ocs_lb_common::address::{Be16, V4};
use ocs_lb_common::parse::{Segment, parse_ipv4};
use ocs_lb_common::track::Phase;
use ocs_lb_common::wire::{Flags, SliceFrame, syn_options, timestamp_value};

use crate::host::Datapath;
use crate::net::Net;
use crate::packet::verify;
use crate::plan::Plan;
use crate::prog::{Action, Outcome};

use super::Step;

/// Seconds, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// What a server last heard on a tuple.
#[derive(Clone, Copy)]
struct Heard {
    /// The client's tuple.
    owner: FlowKey<V4>,
    /// When it closed first, and was not told by a RST since.
    closed_first: Option<u64>,
    /// The client's highest sequence number, plus one.
    seq_end: u32,
    /// Its last timestamp.
    timestamp: Option<u32>,
    /// It sent a FIN.
    client_fin: bool,
    /// It acknowledged something: before, the server has no connection that
    /// could close.
    client_ack: bool,
    /// The server's SYN-ACK was forwarded.
    answered: bool,
}

/// A model, watched.
pub struct Checker {
    host: Datapath,
    net: Net,
    range: (u16, u16),
    /// By the tuple that a backend sees.
    heard: HashMap<FlowKey<V4>, Heard>,
}

impl Checker {
    /// A fresh model of a plan.
    pub fn new(plan: &Plan, net: Net) -> Self {
        Self {
            host: Datapath::new(plan, net, super::route),
            net,
            range: plan.range,
            heard: HashMap::new(),
        }
    }

    /// The model.
    pub fn into_host(self) -> Datapath {
        self.host
    }

    /// Takes a step; what the datapath made of it.
    ///
    /// # Errors
    /// What must not have happened.
    pub fn step(&mut self, step: &Step) -> Result<Option<Outcome>, String> {
        let outcome = match step {
            Step::Sweep { at } => {
                self.host.sweep(*at);
                None
            }
            Step::Frame {
                at,
                from_lan,
                bytes,
            } => {
                let ifindex = if *from_lan {
                    self.net.lan
                } else {
                    self.net.wan
                };
                let outcome = self.host.run(ifindex, bytes, *at);
                self.sent(*from_lan, bytes, &outcome, *at)?;
                Some(outcome)
            }
        };
        self.tell_killed();
        self.consistent()?;
        Ok(outcome)
    }

    /// The controller tells the server of a killed flow.
    fn tell_killed(&mut self) {
        for flow in self.host.flows.values() {
            if flow.state.phase() == Phase::Killed
                && !flow.is_reverse()
                && let Some(heard) = self.heard.get_mut(&flow.peer_key().reversed())
            {
                (heard.closed_first, heard.client_ack) = (None, false);
            }
        }
    }

    /// Never a packet to the wrong peer, and no port before its rest is over.
    fn sent(
        &mut self,
        from_lan: bool,
        before: &[u8],
        outcome: &Outcome,
        now: u64,
    ) -> Result<(), String> {
        if !matches!(outcome.action, Action::Tx | Action::Redirect) {
            return Ok(());
        }
        verify(&outcome.bytes)?;
        let (mut before, mut after) = (before.to_vec(), outcome.bytes.clone());
        let parse = |bytes: &mut Vec<u8>| {
            parse_ipv4(&SliceFrame(bytes)).map_err(|odd| format!("not a packet: {odd:?}"))
        };
        let (came, went) = (parse(&mut before)?, parse(&mut after)?);
        let flags = went.segment.flags;
        let read = if flags.any(Flags::SYN) {
            syn_options(
                &SliceFrame(&mut after),
                went.tcp_offset,
                went.tcp_header_len,
            )
            .timestamp
        } else {
            timestamp_value(
                &SliceFrame(&mut after),
                went.tcp_offset,
                went.tcp_header_len,
            )
        };
        if went.key == came.key.reversed() {
            return Ok(());
        }
        let to_backend = crate::plan::BACKENDS.contains(&went.key.destination.0);
        if !to_backend {
            let heard = self.heard.get_mut(&came.key.reversed());
            let owner = heard.as_ref().map(|heard| heard.owner);
            if owner != Some(went.key.reversed()) {
                return Err(format!(
                    "{:?} went to {:?}, but belongs to {owner:?}",
                    came.key, went.key
                ));
            }
            let Some(heard) = heard else {
                return Ok(());
            };
            if flags.any(Flags::RST) {
                // The server has no connection any more.
                (heard.closed_first, heard.client_ack) = (None, false);
            }
            heard.answered |= flags.any(Flags::SYN);
            if flags.any(Flags::FIN)
                && heard.closed_first.is_none()
                && heard.client_ack
                && (!heard.client_fin || is_after(heard.seq_end, went.segment.ack))
            {
                heard.closed_first = Some(now);
            }
            return Ok(());
        }
        // A refused SYN comes back from one backend and goes to another.
        let owner = if from_lan { None } else { Some(came.key) };
        if flags.is_open() {
            return self.opened(&went.key, owner, (&went.segment, read), now);
        }
        let Some(heard) = self.heard.get_mut(&went.key) else {
            return Err(format!("{:?} went out, but nobody opened it", went.key));
        };
        if Some(heard.owner) != owner {
            return Err(format!(
                "{owner:?} went out as {:?}, which belongs to {:?}",
                went.key, heard.owner
            ));
        }
        if flags.any(Flags::RST) {
            (heard.closed_first, heard.client_ack) = (None, false);
        }
        heard.timestamp = read.or(heard.timestamp);
        heard.client_fin |= flags.any(Flags::FIN);
        heard.client_ack |= heard.answered && flags.any(Flags::ACK) && !flags.any(Flags::RST);
        let end = went.segment.end();
        if end.wrapping_sub(heard.seq_end) < 1 << 31 {
            heard.seq_end = end;
        }
        Ok(())
    }

    fn opened(
        &mut self,
        tuple: &FlowKey<V4>,
        owner: Option<FlowKey<V4>>,
        (segment, timestamp): (&Segment, Option<u32>),
        now: u64,
    ) -> Result<(), String> {
        let current = self
            .host
            .flows
            .get(&tuple.reversed())
            .map(|reverse| reverse.peer_key())
            .ok_or("a SYN went out that cannot come back")?;
        if let Some(owner) = owner
            && owner != current
        {
            return Err(format!("{owner:?} opened {tuple:?} of {current:?}"));
        }
        if let Some(heard) = self.heard.get(tuple)
            && heard.owner != current
            && let Some(closed) = heard.closed_first
            && now - closed < 59 * SECOND
            && !accepts(heard, segment, timestamp)
            && !self.all_used(tuple)
        {
            return Err(format!(
                "{tuple:?} was used again {} s after its server closed it",
                (now - closed) / SECOND
            ));
        }
        let same = self
            .heard
            .get(tuple)
            .is_some_and(|heard| heard.owner == current && heard.seq_end == segment.end());
        if !same {
            let heard = Heard {
                owner: current,
                closed_first: None,
                seq_end: segment.end(),
                timestamp,
                client_fin: false,
                client_ack: false,
                answered: false,
            };
            self.heard.insert(*tuple, heard);
        }
        Ok(())
    }

    /// Whether every port towards a tuple's destination is in use: then the
    /// one that rests longest may be taken.
    fn all_used(&self, tuple: &FlowKey<V4>) -> bool {
        (self.range.0..=self.range.1).all(|port| {
            self.host.is_used(&FlowKey {
                source_port: Be16::new(port),
                ..*tuple
            })
        })
    }

    /// Both entries or none; counts equal flows; every port of a flow is in use.
    fn consistent(&self) -> Result<(), String> {
        let (mut live, mut pending) = ([0u32; 2], [0u32; 2]);
        for (key, flow) in &self.host.flows {
            let peer_key = flow.peer_key();
            let peer = self.host.flows.get(&peer_key);
            if flow.is_reverse() {
                let owned = peer.is_some_and(|owner| owner.peer_key() == *key);
                if !owned && flow.state.phase() != Phase::Dead {
                    return Err(format!("{key:?} has no owner and is no record: {flow:?}"));
                }
                if !self.host.is_used(&key.reversed()) {
                    return Err(format!("the port of {key:?} is free"));
                }
                continue;
            }
            if !peer.is_some_and(|peer| peer.is_reverse() && peer.peer_key() == *key) {
                return Err(format!("{key:?} has no other half"));
            }
            let slot = usize::from(flow.backend);
            match flow.state.phase() {
                Phase::HalfOpen => pending[slot] += 1,
                Phase::Established => live[slot] += 1,
                Phase::Deleting => return Err(format!("{key:?} is being deleted for ever")),
                _ => {}
            }
        }
        let load = &self.host.load;
        for slot in 0..2 {
            let held = load.slots[slot];
            if (held.live, held.pending) != (live[slot], pending[slot]) {
                return Err(format!(
                    "backend {slot} counts {held:?}, but has {} live and {} half-open",
                    live[slot], pending[slot]
                ));
            }
        }
        if (load.live, load.pending) != (live[0] + live[1], pending[0] + pending[1]) {
            return Err("the cluster's counts are not its backends'".into());
        }
        if load.live > 6 {
            return Err(format!("{} live flows of 6 allowed", load.live));
        }
        Ok(())
    }

    /// Every flow has ended: nothing is left.
    ///
    /// # Errors
    /// What is.
    pub fn is_empty(&self) -> Result<(), String> {
        let (flows, used) = (self.host.flows.len(), self.host.used());
        let resting = self.host.load.resting;
        if (flows, used, resting) == (0, 0, 0) {
            return Ok(());
        }
        Err(format!(
            "at the end there are {flows} entries, {used} ports in use, {resting} resting: {:?}",
            self.host.flows
        ))
    }
}

/// Whether a Linux server's TIME_WAIT lets a SYN in
/// (`tcp_timewait_state_process`).
fn accepts(heard: &Heard, segment: &Segment, timestamp: Option<u32>) -> bool {
    match (timestamp, heard.timestamp) {
        (Some(new), Some(old)) => is_after(new, old),
        _ => is_after(segment.seq, heard.seq_end),
    }
}

/// Modulo 2^32.
const fn is_after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}
