//! VLAN tags (IEEE 802.1Q): taken off before a packet's way, put on at its end.
//!
//! So everything between finds the IP header at one place, and packets without
//! tags pay nothing.

use ocs_lb_common::{
    abi::{Tag, Tags},
    address::V4,
    parse::{IP_OFFSET, behind_tags},
    wire::{EtherType, Ipv4},
};

use crate::{
    maps::{Family as _, TAGS},
    packet::Medium,
};

/// The tags that the packet under way came with; none where it had none.
#[inline(always)]
pub fn current() -> Tags {
    TAGS.get_ptr(0)
        // SAFETY: a per-CPU value, copied.
        .map_or(Tags::default(), |tags| unsafe { *tags })
}

/// Takes the tags off a packet to one of our addresses; whether it did. One that
/// is not ours stays as it is.
#[inline(always)]
pub fn untag<M: Medium>(frame: &mut M) -> bool {
    let Some((EtherType::IPV4, len)) = behind_tags(frame) else {
        return false;
    };
    let Some(bytes) = frame.at::<{ Ipv4::LEN }>(IP_OFFSET + len) else {
        return false;
    };
    let destination = Ipv4(bytes).destination();
    if V4::addresses().get_ptr(&destination).is_none() {
        return false;
    }
    let Some(outer) = frame.pop_tag() else {
        return false;
    };
    let inner = frame.pop_tag().unwrap_or_default();
    remember([outer, inner]);
    true
}

/// Gives a packet that the host gets its tags back; whether there was room.
#[inline(always)]
pub fn restore<M: Medium>(frame: &mut M) -> bool {
    push(frame, &current())
}

/// Puts a next hop's tags around a packet. One that stays in its VLAN keeps its
/// priority there.
#[inline(always)]
pub fn tag<M: Medium>(frame: &mut M, tags: &Tags) -> bool {
    let came_with = current();
    let kept = |wanted: Tag, had: Tag| {
        if wanted.same_vlan(&had) { had } else { wanted }
    };
    push(
        frame,
        &[kept(tags[0], came_with[0]), kept(tags[1], came_with[1])],
    )
}

/// The packet's way is over: the next may have no tags.
#[inline(always)]
pub fn forget() {
    remember(Tags::default());
}

#[inline(always)]
fn push<M: Medium>(frame: &mut M, tags: &Tags) -> bool {
    (!tags[1].is_some() || frame.push_tag(tags[1])) && frame.push_tag(tags[0])
}

#[inline(always)]
fn remember(tags: Tags) {
    if let Some(place) = TAGS.get_ptr_mut(0) {
        // SAFETY: a per-CPU value.
        unsafe { *place = tags };
    }
}
