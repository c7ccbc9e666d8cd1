//! What an interface's driver does to packets before and after us, from the
//! kernel's ethtool messages (`Documentation/networking/ethtool-netlink.rst`).

use std::fmt;

use ethtool::{EthtoolAttr, EthtoolFeatureAttr, EthtoolFeatureBit};
use futures_util::TryStreamExt as _;

/// Why the offloads of an interface are not known.
#[derive(Debug, thiserror::Error)]
pub enum OffloadsError {
    /// No socket.
    #[error("netlink socket: {0}")]
    Socket(#[from] std::io::Error),
    /// The kernel refused, or has no ethtool messages.
    #[error("offloads of {interface}: {source}")]
    Request {
        /// The interface.
        interface: String,
        /// The kernel's answer.
        source: Box<ethtool::EthtoolError>,
    },
    /// It answered without what was asked for.
    #[error("offloads of {0}: the kernel does not tell them")]
    Untold(String),
}

/// The offloads that are on; false also where a driver has no such thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Offloads {
    /// `rx-checksum`.
    pub rx_checksum: bool,
    /// Any of `tx-checksum-*` for IPv4: packets leave the host's own stack
    /// with a partial checksum.
    pub tx_checksum: bool,
    /// `tx-tcp-segmentation`.
    pub tso: bool,
    /// `tx-generic-segmentation`.
    pub gso: bool,
    /// `rx-gro`: packets are merged by the kernel, after XDP.
    pub gro: bool,
    /// `rx-lro`: packets are merged before XDP, past recovery.
    pub lro: bool,
    /// `rx-gro-hw`: packets are merged by the hardware, before XDP.
    pub gro_hw: bool,
}

impl Offloads {
    fn of(bits: &[EthtoolFeatureBit]) -> Self {
        // The list has what is on (`ETHTOOL_A_FEATURES_ACTIVE`); names in
        // net/ethtool/common.c, `netdev_features_strings`.
        let on = |name: &str| bits.iter().any(|bit| bit.value && bit.name == name);
        Self {
            rx_checksum: on("rx-checksum"),
            tx_checksum: on("tx-checksum-ip-generic") || on("tx-checksum-ipv4"),
            tso: on("tx-tcp-segmentation"),
            gso: on("tx-generic-segmentation"),
            gro: on("rx-gro"),
            lro: on("rx-lro"),
            gro_hw: on("rx-gro-hw"),
        }
    }

    /// Each offload by the name that `ethtool -K` takes.
    pub fn named(&self) -> [(&'static str, bool); 7] {
        [
            ("rx", self.rx_checksum),
            ("tx", self.tx_checksum),
            ("tso", self.tso),
            ("gso", self.gso),
            ("gro", self.gro),
            ("lro", self.lro),
            ("rx-gro-hw", self.gro_hw),
        ]
    }

    /// Those that hand XDP packets merged from several, which no longer fit
    /// the wire they are to leave by.
    pub fn merging(&self) -> Vec<&'static str> {
        let merges =
            |(name, on): &(&'static str, bool)| *on && matches!(*name, "lro" | "rx-gro-hw");
        self.named()
            .iter()
            .filter(|one| merges(one))
            .map(|(name, _)| *name)
            .collect()
    }

    /// What is different from before, for people: `gro on -> off, tx off -> on`.
    pub fn changes(&self, before: &Self) -> String {
        let word = |on| if on { "on" } else { "off" };
        let pairs = before.named().into_iter().zip(self.named());
        let changed: Vec<String> = pairs
            .filter(|(was, is)| was != is)
            .map(|((name, was), (_, is))| format!("{name} {} -> {}", word(was), word(is)))
            .collect();
        changed.join(", ")
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on: Vec<_> = self
            .named()
            .iter()
            .filter(|(_, on)| *on)
            .map(|(name, _)| *name)
            .collect();
        to.write_str(&on.join(", "))
    }
}

/// The offloads of one interface of this thread's network namespace.
///
/// # Errors
/// [`OffloadsError`]; also where there is no such interface.
pub async fn offloads(name: &str) -> Result<Offloads, OffloadsError> {
    let (connection, mut handle, _) = ethtool::new_connection()?;
    // It ends with its handle.
    tokio::spawn(connection);
    let request = |source| OffloadsError::Request {
        interface: name.to_owned(),
        source: Box::new(source),
    };
    let mut answers = handle
        .feature()
        .get(Some(name))
        .execute()
        .await
        .map_err(request)?;
    while let Some(answer) = answers.try_next().await.map_err(request)? {
        for attribute in answer.payload.nlas {
            if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
                return Ok(Offloads::of(&bits));
            }
        }
    }
    Err(OffloadsError::Untold(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(names: &[&str]) -> Vec<EthtoolFeatureBit> {
        let bit = |(index, name): (usize, &&str)| EthtoolFeatureBit {
            index: index as u32 + 1,
            name: (*name).to_owned(),
            value: true,
        };
        names.iter().enumerate().map(bit).collect()
    }

    #[test]
    fn names_of_the_kernel_are_read() {
        let none = Offloads::default();
        assert_eq!(Offloads::of(&bits(&["tx-nocache-copy", "highdma"])), none);
        let off = [EthtoolFeatureBit {
            index: 14,
            name: "rx-gro".into(),
            value: false,
        }];
        assert_eq!(Offloads::of(&off), none);
        for (name, expected) in [
            ("rx-checksum", "rx"),
            ("tx-checksum-ip-generic", "tx"),
            ("tx-checksum-ipv4", "tx"),
            ("tx-tcp-segmentation", "tso"),
            ("tx-generic-segmentation", "gso"),
            ("rx-gro", "gro"),
            ("rx-lro", "lro"),
            ("rx-gro-hw", "rx-gro-hw"),
        ] {
            assert_eq!(Offloads::of(&bits(&[name])).to_string(), expected);
        }
    }

    #[test]
    fn only_hardware_merges_before_xdp() {
        let gro = Offloads::of(&bits(&["rx-gro", "tx-tcp-segmentation"]));
        assert!(gro.merging().is_empty());
        let all = Offloads::of(&bits(&["rx-gro", "rx-lro", "rx-gro-hw"]));
        assert_eq!(all.merging(), ["lro", "rx-gro-hw"]);
    }

    #[test]
    fn changes_are_told_in_the_words_of_ethtool() {
        let before = Offloads::of(&bits(&["rx-gro", "rx-checksum"]));
        let after = Offloads::of(&bits(&["rx-lro", "rx-checksum"]));
        assert_eq!(after.changes(&before), "gro on -> off, lro off -> on");
        assert_eq!(after.changes(&after), "");
    }

    #[tokio::test]
    async fn the_kernel_tells_them() {
        // The loopback interface always has these.
        let found = offloads("lo").await.expect("it answers");
        assert!(
            found.tso && found.tx_checksum && found.merging().is_empty(),
            "{found}"
        );
        let error = offloads("nothing0").await.expect_err("there is none");
        assert!(
            error.to_string().starts_with("offloads of nothing0: "),
            "{error}"
        );
    }
}
