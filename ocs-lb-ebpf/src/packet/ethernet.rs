//! VLAN tags that lie in a frame.

use ocs_lb_common::{
    abi::Tag,
    address::Be16,
    wire::{EtherType, Frame},
};

/// Whether there is one.
#[inline(always)]
pub fn has_tag(frame: &impl Frame) -> bool {
    tag(frame).is_some()
}

/// The outer one.
#[inline(always)]
pub fn tag(frame: &impl Frame) -> Option<Tag> {
    let [a, b, c, d] = *frame.at::<4>(12)?;
    let tag = Tag {
        protocol: Be16([a, b]),
        control: Be16([c, d]),
    };
    EtherType(tag.protocol.get()).is_tag().then_some(tag)
}
