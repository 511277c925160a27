//! TCP connections to the outside end with a snapshot: neither end may wait for the other. They are aborted when the application has been frozen, so the peer
//! hears of it at once, and the application does so first thing when it runs again: a read fails instead of hanging. Connections within the guest survive.
//!
//! By sock_diag(7), as `ss --kill` does it. Connections of network namespaces that the application made for itself are not found.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, bail};
use emberbox_agent_protocol::{AGENT_PORT, GUEST_ADDRESS};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// linux/sock_diag.h, linux/netlink.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const HEADER: usize = 16;
/// `struct inet_diag_sockid`; in an answer it begins at byte 4, in a request at byte 8.
const SOCKET_ID: usize = 48;
/// `struct inet_diag_msg`
const MESSAGE: usize = 72;
/// Every state of tcp_states.h in which the other end may be waited for: all but TIME_WAIT (6), CLOSE (7), LISTEN (10) and NEW_SYN_RECV (12).
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// One answer of the kernel's at most.
const ANSWER: usize = 32 * 1024;

/// Aborts every TCP connection of this network namespace but the host's to this agent and those within the guest.
pub(crate) fn abort_connections() -> Result<()> {
    let netlink = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)
        .context("opening a sock_diag socket")?;
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        for found in list(&netlink, family).context("listing connections")? {
            destroy(&netlink, family, &found).context("aborting a connection")?;
        }
    }
    Ok(())
}

/// A socket as the kernel names it.
type SocketId = [u8; SOCKET_ID];

fn list(netlink: &OwnedFd, family: u8) -> Result<Vec<SocketId>> {
    ask(netlink, SOCK_DIAG_BY_FAMILY, REQUEST | DUMP, family, &[0; SOCKET_ID])?;
    let mut found = Vec::new();
    let mut answer = vec![0; ANSWER];
    loop {
        let length = receive(netlink, &mut answer)?;
        for (kind, message) in messages(&answer[..length]) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => bail!("the kernel answers {}", error_of(message)),
                _ => found.extend(of_interest(family, message)),
            }
        }
    }
}

fn destroy(netlink: &OwnedFd, family: u8, id: &SocketId) -> Result<()> {
    ask(netlink, SOCK_DESTROY, REQUEST | ACKNOWLEDGE, family, id)?;
    let mut answer = [0; 1024];
    let length = receive(netlink, &mut answer)?;
    match messages(&answer[..length]).find(|(kind, _)| *kind == NLMSG_ERROR).map(|(_, message)| error_of(message)) {
        // It was closed meanwhile.
        Some(Errno::UnknownErrno | Errno::ENOENT | Errno::ESTALE) => Ok(()),
        Some(error) => bail!("the kernel answers {error}"),
        None => bail!("the kernel does not answer"),
    }
}

fn ask(netlink: &OwnedFd, kind: u16, flags: u16, family: u8, id: &SocketId) -> io::Result<()> {
    let mut request = Vec::with_capacity(HEADER + 8 + SOCKET_ID);
    request.extend_from_slice(&((HEADER + 8 + SOCKET_ID) as u32).to_ne_bytes());
    request.extend_from_slice(&kind.to_ne_bytes());
    request.extend_from_slice(&flags.to_ne_bytes());
    // Sequence and port: one request at a time needs neither.
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[family, libc::IPPROTO_TCP as u8, 0, 0]);
    request.extend_from_slice(&STATES.to_ne_bytes());
    request.extend_from_slice(id);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    Ok(())
}

/// The kernel answers while it is asked, so this does not wait.
fn receive(netlink: &OwnedFd, answer: &mut [u8]) -> Result<usize> {
    match recv(netlink.as_raw_fd(), answer, MsgFlags::MSG_DONTWAIT)? {
        0 => bail!("an empty answer"),
        length => Ok(length),
    }
}

/// Kind and payload of each message.
fn messages(mut answer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(answer.get(..4)?.try_into().ok()?)).ok()?;
        let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
        let payload = answer.get(HEADER..length)?;
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

fn error_of(message: &[u8]) -> Errno {
    let number = message.get(..4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    Errno::from_raw(-number.unwrap_or(-libc::EPROTO))
}

/// The socket of a message, when its peer is outside.
fn of_interest(family: u8, message: &[u8]) -> Option<SocketId> {
    let id: SocketId = message.get(..MESSAGE)?.get(4..4 + SOCKET_ID)?.try_into().ok()?;
    let port = u16::from_be_bytes([id[0], id[1]]);
    let (local, peer) = (address(family, &id[4..20])?, address(family, &id[20..36])?);
    let ours = local == IpAddr::V4(GUEST_ADDRESS) && port == AGENT_PORT;
    (!ours && !peer.is_loopback() && !peer.is_unspecified()).then_some(id)
}

/// IPv4 in IPv6 sockets is IPv4.
fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(&bytes[..4]).ok()?).into()),
        _ => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(local: (Ipv4Addr, u16), peer: Ipv4Addr) -> Vec<u8> {
        let mut message = vec![0; MESSAGE];
        message[4..6].copy_from_slice(&local.1.to_be_bytes());
        message[8..12].copy_from_slice(&local.0.octets());
        message[24..28].copy_from_slice(&peer.octets());
        message
    }

    #[test]
    fn the_hosts_connections_and_those_within_are_left_alone() {
        let outside = Ipv4Addr::new(192, 0, 2, 1);
        let v4 = libc::AF_INET as u8;
        assert!(of_interest(v4, &message((GUEST_ADDRESS, 40_000), outside)).is_some());
        assert!(of_interest(v4, &message((GUEST_ADDRESS, AGENT_PORT), outside)).is_none());
        assert!(of_interest(v4, &message((Ipv4Addr::LOCALHOST, 8080), Ipv4Addr::LOCALHOST)).is_none());
        assert!(of_interest(v4, &message((GUEST_ADDRESS, 1), outside)[..MESSAGE - 1]).is_none(), "cut off");
    }

    #[test]
    fn ipv4_in_ipv6_is_seen_through() {
        let mut bytes = message((GUEST_ADDRESS, 40_000), Ipv4Addr::UNSPECIFIED);
        bytes[8..24].copy_from_slice(&GUEST_ADDRESS.to_ipv6_mapped().octets());
        for (peer, outside) in [(Ipv4Addr::LOCALHOST, false), (Ipv4Addr::new(192, 0, 2, 1), true)] {
            bytes[24..40].copy_from_slice(&peer.to_ipv6_mapped().octets());
            assert_eq!(of_interest(libc::AF_INET6 as u8, &bytes).is_some(), outside);
        }
    }

    #[test]
    fn answers_are_taken_apart() {
        let mut answer = Vec::new();
        for (kind, payload) in [(20_u16, &[1_u8, 2, 3][..]), (3, &[0; 4])] {
            answer.extend_from_slice(&((HEADER + payload.len()) as u32).to_ne_bytes());
            answer.extend_from_slice(&kind.to_ne_bytes());
            answer.extend_from_slice(&[0; 10]);
            answer.extend_from_slice(payload);
            answer.resize(answer.len().next_multiple_of(4), 0);
        }
        let all: Vec<_> = messages(&answer).map(|(kind, payload)| (kind, payload.to_vec())).collect();
        assert_eq!(all, [(20, vec![1, 2, 3]), (3, vec![0; 4])]);
        assert_eq!(messages(&answer[..10]).count(), 0);
        assert_eq!(error_of(&(-libc::ENOENT).to_ne_bytes()), Errno::ENOENT);
    }
}
