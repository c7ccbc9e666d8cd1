//! Sockets of this host that hold what we are about to serve.
//!
//! Once the program is attached, packets of served ports no longer reach the
//! host's stack, so a HAProxy on the same VIP would lose its sessions in
//! silence. It is named instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use procfs::net::TcpState;
use procfs::process::FDTarget;

use crate::model::{Model, Port};

/// A process with sockets on a served VIP and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The VIP and port.
    pub served: SocketAddr,
    /// Name and id of the process; nothing where it cannot be told.
    pub process: Option<(String, i32)>,
    /// Whether it listens; it holds a connection otherwise.
    pub listens: bool,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let does = if self.listens {
            "listens on"
        } else {
            "holds connections on"
        };
        match &self.process {
            Some((name, id)) => write!(f, "{name} (process {id}) {does} {}", self.served),
            None => write!(f, "a process {does} {}", self.served),
        }
    }
}

/// One socket of the kernel's table.
struct Socket {
    local: SocketAddr,
    listens: bool,
    inode: u64,
}

/// Every process that listens or holds connections on what the model serves.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn holders(model: &Model) -> Result<Vec<Holder>, procfs::ProcError> {
    let served = served(model);
    let sockets: Vec<Socket> = procfs::net::tcp()?
        .into_iter()
        .chain(procfs::net::tcp6().unwrap_or_default())
        .filter(|entry| entry.state != TcpState::TimeWait)
        .map(|entry| Socket {
            local: entry.local_address,
            listens: entry.state == TcpState::Listen,
            inode: entry.inode,
        })
        .collect();
    let found = matching(&served, &sockets, &local_addresses());
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let inodes: BTreeSet<u64> = found.iter().map(|(_, socket)| socket.inode).collect();
    let owners = owners(&inodes);
    let mut holders: Vec<Holder> = Vec::new();
    for (served, socket) in found {
        let holder = Holder {
            served,
            process: owners.get(&socket.inode).cloned(),
            listens: socket.listens,
        };
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }
    Ok(holders)
}

fn served(model: &Model) -> BTreeSet<SocketAddr> {
    model
        .clusters
        .iter()
        .flat_map(|cluster| {
            cluster.vips.iter().flat_map(|vip| {
                let ports = cluster.ports.iter();
                ports.map(|port| SocketAddr::new(vip.address, port.listen))
            })
        })
        .collect()
}

/// This host's addresses; none where they cannot be told.
fn local_addresses() -> BTreeSet<IpAddr> {
    nix::ifaddrs::getifaddrs()
        .into_iter()
        .flatten()
        .filter_map(|interface| Some(interface.address?.as_sockaddr_in()?.ip().into()))
        .collect()
}

/// Sockets on a served address; a listener on every address counts too, where
/// the served one is this host's.
fn matching<'a>(
    served: &BTreeSet<SocketAddr>,
    sockets: &'a [Socket],
    local: &BTreeSet<IpAddr>,
) -> Vec<(SocketAddr, &'a Socket)> {
    let mut found = Vec::new();
    for socket in sockets {
        let address = match socket.local.ip() {
            IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4),
            ip => ip,
        };
        for target in served {
            let any = socket.listens && address.is_unspecified() && local.contains(&target.ip());
            let dialled = target.port() == socket.local.port() || target.port() == Port::ANY;
            if dialled && (any || target.ip() == address) {
                found.push((*target, socket));
            }
        }
    }
    found
}

/// Names and ids of the processes that hold these sockets.
fn owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, (String, i32)> {
    let mut owners = BTreeMap::new();
    // Processes come and go while we look; what cannot be read is skipped.
    for process in procfs::process::all_processes()
        .into_iter()
        .flatten()
        .flatten()
    {
        let (Ok(files), Ok(stat)) = (process.fd(), process.stat()) else {
            continue;
        };
        for file in files.flatten() {
            if let FDTarget::Socket(inode) = file.target
                && inodes.contains(&inode)
            {
                owners.insert(inode, (stat.comm.clone(), stat.pid));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_in_the_way() {
        let served: BTreeSet<SocketAddr> = ["192.0.2.1:443", "192.0.2.1:5061"]
            .map(|text| text.parse().expect("an address"))
            .into();
        let cases = [
            ("192.0.2.1:443", true, 1),
            ("192.0.2.1:443", false, 1),
            ("0.0.0.0:443", true, 1),
            ("[::]:443", true, 1),
            ("[::ffff:192.0.2.1]:5061", false, 1),
            ("192.0.2.1:22", true, 0),
            ("192.0.2.2:443", true, 0),
        ];
        for (local, listens, count) in cases {
            let sockets = [Socket {
                local: local.parse().expect("an address"),
                listens,
                inode: 1,
            }];
            let ours = BTreeSet::from(["192.0.2.1".parse().expect("an address")]);
            assert_eq!(matching(&served, &sockets, &ours).len(), count, "{local}");
            if local.starts_with("0.0.0.0") {
                let nothing = BTreeSet::new();
                assert_eq!(
                    matching(&served, &sockets, &nothing).len(),
                    0,
                    "a VIP elsewhere"
                );
            }
        }
    }
}
