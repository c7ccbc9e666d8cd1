//! The other end of a veth pair: whether it leaves checksums to a card.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::net::if_::if_indextoname;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::SockProtocol;

use super::Link;
use super::raw::{Socket, attribute, attributes};

/// `RTM_GETNSID`, `NETNSA_NSID`, `NETNSA_FD`
/// (`include/uapi/linux/{rtnetlink,net_namespace}.h`).
const GET_NSID: u16 = 90;
const NSID: u16 = 1;
const FD: u16 = 3;
/// `struct rtgenmsg`, padded.
const GENERIC_MESSAGE: usize = 4;
/// `ETHTOOL_GTXCSUM` (`include/uapi/linux/ethtool.h`).
const GET_TX_CHECKSUMS: u32 = 0x16;
/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";

/// A peer's transmit checksum offload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name where it is.
    pub name: String,
    /// Whether it leaves checksums out.
    pub offload: bool,
}

/// The peer of a veth; nothing where its namespace cannot be found.
pub fn peer(link: &Link) -> Option<Peer> {
    let ifindex = link.parent?;
    let Some(nsid) = link.parent_namespace else {
        return look(ifindex);
    };
    let place = namespace(nsid)?;
    // A thread of its own, because it stays in the other namespace.
    std::thread::spawn(move || {
        setns(place.as_fd(), CloneFlags::CLONE_NEWNET).ok()?;
        look(ifindex)
    })
    .join()
    .ok()?
}

/// In the namespace of this thread.
fn look(ifindex: u32) -> Option<Peer> {
    let name = if_indextoname(ifindex).ok()?.into_string().ok()?;
    let offload = transmits_partial(&name)?;
    Some(Peer { name, offload })
}

/// The namespace that ours knows by this id, among those of processes, threads
/// and names.
fn namespace(nsid: i32) -> Option<File> {
    let socket = Socket::open(SockProtocol::NetlinkRoute).ok()?;
    let mut seen = BTreeSet::new();
    candidates().find_map(|path| {
        let inode = fs::metadata(&path).ok()?.ino();
        if !seen.insert(inode) {
            return None;
        }
        let file = File::open(&path).ok()?;
        (id(&socket, &file).ok()? == nsid).then_some(file)
    })
}

fn candidates() -> impl Iterator<Item = PathBuf> {
    let within = |directory: &Path| {
        let entries = fs::read_dir(directory).into_iter().flatten();
        entries.flatten().map(|entry| entry.path())
    };
    let threads = within(Path::new("/proc"))
        .flat_map(move |process| within(&process.join("task")).collect::<Vec<_>>())
        .map(|thread| thread.join("ns/net"));
    within(Path::new(NAMED)).chain(threads)
}

/// What our namespace calls another one; below 0 where it has no name for it.
fn id(socket: &Socket, file: &File) -> io::Result<i32> {
    let mut body = vec![0; GENERIC_MESSAGE];
    body.extend(attribute(FD, &file.as_raw_fd().to_ne_bytes()));
    let answers = socket.ask(GET_NSID, false, &body)?;
    answers
        .iter()
        .filter_map(|answer| answer.get(GENERIC_MESSAGE..))
        .flat_map(attributes)
        .find_map(|(kind, value)| (kind == NSID).then(|| value.try_into().ok())?)
        .map(i32::from_ne_bytes)
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The name of an interface's driver; nothing where it has none.
pub fn driver(name: &str) -> Option<String> {
    /// `ETHTOOL_GDRVINFO`, `struct ethtool_drvinfo`.
    const GET_DRIVER: u32 = 0x3;
    #[repr(C)]
    struct DriverInfo {
        command: u32,
        driver: [u8; 32],
        rest: [u8; 160],
    }
    let mut info = DriverInfo {
        command: GET_DRIVER,
        driver: [0; 32],
        rest: [0; 160],
    };
    // SAFETY: the kernel writes a `struct ethtool_drvinfo`, which this is.
    unsafe { ethtool(name, (&raw mut info).cast()) }.ok()?;
    let driver = CStr::from_bytes_until_nul(&info.driver).ok()?;
    Some(driver.to_str().ok()?.to_owned())
}

fn transmits_partial(name: &str) -> Option<bool> {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    let mut value = Value {
        command: GET_TX_CHECKSUMS,
        data: 0,
    };
    // SAFETY: the kernel writes a `struct ethtool_value`, which this is.
    unsafe { ethtool(name, (&raw mut value).cast()) }.ok()?;
    Some(value.data != 0)
}

nix::ioctl_readwrite_bad!(
    /// `SIOCETHTOOL` (`include/uapi/linux/sockios.h`).
    siocethtool,
    0x8946,
    nix::libc::ifreq
);

/// # Safety
/// `data` points to what the command in its first word reads and writes.
unsafe fn ethtool(name: &str, data: *mut nix::libc::c_char) -> io::Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: plain integers and a union of them; zero is a value.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(15)) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = data;
    // SAFETY: the request names a link, and the caller answers for the data.
    unsafe { siocethtool(socket.as_raw_fd(), &raw mut request) }?;
    Ok(())
}
