//! What is known of an interface, for the choice of its mode.

use std::fmt;

use crate::model::AttachMode;

/// Where an interface's packets meet the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// XDP in the driver.
    Native,
    /// XDP in the stack, after the socket buffer exists.
    Generic,
    /// The ingress of traffic control (tcx).
    Tc,
}

impl Mode {
    /// As the configuration, the metrics and the log have it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tc => "tc",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.label())
    }
}

/// Kinds of interfaces, as far as they differ here (`IFLA_INFO_KIND`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Kind {
    /// A network card, or whatever has no kind.
    #[default]
    Card,
    /// One end of a veth pair.
    Veth,
    /// A tap (or a tun, which has no Ethernet header).
    Tap,
    /// A bond or a team.
    Bond,
    /// A bridge, as the host's own port of it.
    Bridge,
    /// A VLAN sub-interface.
    Vlan,
    /// A dummy: nothing ever comes in there.
    Dummy,
    /// A VRF.
    Vrf,
    /// The loopback.
    Loopback,
    /// Any other, by the kernel's word for it: macvlan, vxlan, gretap.
    Other(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Card => "network card",
            Self::Veth => "veth",
            Self::Tap => "tap",
            Self::Bond => "bond",
            Self::Bridge => "bridge",
            Self::Vlan => "VLAN sub-interface",
            Self::Dummy => "dummy",
            Self::Vrf => "VRF",
            Self::Loopback => "loopback",
            Self::Other(kind) => kind,
        })
    }
}

/// Whether an interface can do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// The kernel says so.
    Yes,
    /// It does not, and why.
    No(String),
    /// The kernel does not say: trying tells.
    Unknown,
}

impl Support {
    /// Whether it certainly cannot.
    pub const fn is_no(&self) -> bool {
        matches!(self, Self::No(_))
    }
}

/// Whether packets come in whose checksum is left to a card that they never
/// meet (`CHECKSUM_PARTIAL`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Partial {
    /// They do not.
    No,
    /// They do, and what switches it off.
    Yes(String),
    /// They do, but not while XDP is attached natively.
    UnlessNative,
    /// It cannot be seen, and why not.
    Unknown(String),
}

/// What is known of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Kernel name.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Whether its frames have an Ethernet header.
    pub ethernet: bool,
    /// The bond, bridge or VRF that it belongs to: name and kind.
    pub master: Option<(String, Kind)>,
    /// What the file says.
    pub wanted: AttachMode,
    /// The mode in which our program is attached already.
    pub has: Option<Mode>,
    /// Native XDP with redirect.
    pub native: Support,
    /// Taking frames that native XDP redirects (`ndo_xdp_xmit`), once our own
    /// program is attached natively if that is needed.
    pub transmits: Support,
    /// Checksums of what comes in.
    pub partial: Partial,
    /// Whether large receive offload is on.
    pub lro: bool,
    /// Whether the card merges packets such that they can be told apart again.
    pub gro_hw: bool,
    /// An XDP program of others: `XDP program 12 (name)`.
    pub other_xdp: Option<String>,
}
