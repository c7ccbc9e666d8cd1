//! ICMP, as `icmp.rs` of the programs.

use ocs_lb_common::abi::Flow;
use ocs_lb_common::address::V4;
use ocs_lb_common::classify;
use ocs_lb_common::icmp::{
    ERRORS_PER_CPU, Echo, Error, Message, Obstacle, ROOM, answers_echo, is_known, may_tell,
    parse_ipv4, quote_len, translate, without_flow, write_error, write_reply,
};
use ocs_lb_common::parse::{IP_OFFSET, Packet};
use ocs_lb_common::verdict::Verdict;
use ocs_lb_common::wire::SliceFrame;

use super::{Datapath, Next, Now};

impl Datapath {
    /// A packet that is not TCP, to one of our addresses.
    pub(super) fn icmp(
        &mut self,
        bytes: &mut Vec<u8>,
        ifindex: u32,
        now: Now,
    ) -> Result<Verdict, Verdict> {
        let error = match parse_ipv4(&SliceFrame(bytes))? {
            Message::Error(error) => error,
            Message::Foreign(destination) => return Err(self.unknown(destination)),
            Message::Echo(echo) => return self.echo(bytes, &echo, ifindex),
            Message::Other(destination) => return Err(self.other(destination)),
        };
        let entry = self.quoted(&error)?;
        if error.ttl <= 1 {
            return Err(Verdict::TtlExceeded);
        }
        let Some(Next::Move(moving)) = self.unreachable(&error, &entry) else {
            return self.pass_on(bytes, &error, ifindex);
        };
        match self.relocate(bytes, &moving, now) {
            Next::Stay => self.pass_on(bytes, &error, ifindex),
            Next::Exit(verdict) => Err(verdict),
            _ => self.send_anew(bytes, ifindex, now),
        }
    }

    fn unknown(&self, destination: V4) -> Verdict {
        let flags = self.addresses.get(&destination).copied();
        flags.map_or(Verdict::NotOurs, without_flow)
    }

    fn other(&self, destination: V4) -> Verdict {
        let flags = self.addresses.get(&destination).copied();
        flags.map_or(Verdict::NotOurs, |address| {
            classify::odd(Verdict::NotTcp, address)
        })
    }

    fn quoted(&self, error: &Error) -> Result<Flow<V4>, Verdict> {
        let entry = self.flows.get(&error.quoted.reversed()).copied();
        entry
            .filter(|entry| is_known(entry.state))
            .ok_or_else(|| self.unknown(error.quoted.source))
    }

    fn pass_on(&self, bytes: &mut [u8], error: &Error, ifindex: u32) -> Result<Verdict, Verdict> {
        let entry = self.quoted(error)?;
        let hop = self.valid_hop(entry.next_hop)?;
        translate(&mut SliceFrame(bytes), error, &entry).ok_or(Verdict::Malformed)?;
        self.forward(bytes, ifindex, &hop)
    }

    fn echo(&mut self, bytes: &mut [u8], echo: &Echo, ifindex: u32) -> Result<Verdict, Verdict> {
        let flags = |address| self.addresses.get(&address).copied();
        if !flags(echo.destination).is_some_and(answers_echo) {
            return Err(Verdict::NotTcp);
        }
        let id = self.next_hop(echo.source)?;
        let hop = self.valid_hop(id)?;
        if hop.mtu != 0 && echo.ip_len > hop.mtu {
            return Err(Verdict::TooBig);
        }
        write_reply(&mut SliceFrame(bytes), echo).ok_or(Verdict::Malformed)?;
        self.forward(bytes, ifindex, &hop)?;
        Ok(Verdict::AnsweredEcho)
    }

    /// `(ifindex, back)`: where the packet came in, and the next hop to its
    /// sender.
    pub(super) fn tell(
        &mut self,
        bytes: &mut Vec<u8>,
        packet: &Packet<V4>,
        obstacle: Obstacle,
        (ifindex, back): (u32, u16),
        now: Now,
    ) -> Result<Verdict, Verdict> {
        if !may_tell(&SliceFrame(bytes)) {
            return Err(obstacle.silent());
        }
        if !self.icmp_budget.take(now.ticks, ERRORS_PER_CPU) {
            return Err(Verdict::IcmpLimited);
        }
        let hop = self.valid_hop(back)?;
        bytes.truncate(IP_OFFSET + quote_len(packet));
        bytes.splice(IP_OFFSET..IP_OFFSET, [0; ROOM]);
        write_error(&mut SliceFrame(bytes), packet, obstacle, false).ok_or(Verdict::Malformed)?;
        self.forward(bytes, ifindex, &hop)?;
        Ok(obstacle.told())
    }
}
