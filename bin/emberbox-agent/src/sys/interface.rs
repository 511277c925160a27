//! Network interfaces by ioctl: a handful of fixed settings does not need a netlink library.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// A socket to configure interfaces through.
pub(crate) struct Configurator {
    socket: OwnedFd,
}

impl Configurator {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { socket: socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)? })
    }

    pub(crate) fn set_address(&self, interface: &str, address: Ipv4Addr, prefix_length: u8) -> io::Result<()> {
        let mut request = named(interface)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.interface_ioctl(libc::SIOCSIFADDR, &mut request)?;
        request.ifr_ifru.ifru_netmask = socket_address(netmask(prefix_length));
        self.interface_ioctl(libc::SIOCSIFNETMASK, &mut request)
    }

    pub(crate) fn up(&self, interface: &str) -> io::Result<()> {
        let mut request = named(interface)?;
        self.interface_ioctl(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: SIOCGIFFLAGS has just filled this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        self.interface_ioctl(libc::SIOCSIFFLAGS, &mut request)
    }

    pub(crate) fn default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: all-zero is a valid rtentry: integers, and pointers that may be null.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        // SAFETY: the kernel reads one rtentry, which outlives the call and whose device pointer is null.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) })
    }

    /// A neighbour that is never asked for.
    pub(crate) fn permanent_neighbour(&self, interface: &str, address: Ipv4Addr, mac: [u8; 6]) -> io::Result<()> {
        // SAFETY: all-zero is a valid arpreq: integers alone.
        let mut request: libc::arpreq = unsafe { std::mem::zeroed() };
        request.arp_pa = socket_address(address);
        request.arp_ha.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in request.arp_ha.sa_data.iter_mut().zip(mac) {
            *to = from as libc::c_char;
        }
        request.arp_flags = libc::ATF_PERM | libc::ATF_COM;
        copy_name(&mut request.arp_dev, interface)?;
        // SAFETY: the kernel reads one arpreq, which outlives the call.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCSARP, &raw const request) })
    }

    fn interface_ioctl(&self, request: libc::c_ulong, argument: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: every caller passes a request that reads or writes one ifreq, which outlives the call.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), request as libc::Ioctl, std::ptr::from_mut(argument)) })
    }
}

fn named(interface: &str) -> io::Result<libc::ifreq> {
    // SAFETY: all-zero is a valid ifreq: integers, and a union whose pointers may be null.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    copy_name(&mut request.ifr_name, interface)?;
    Ok(request)
}

/// Copies a name, zero at its end included.
fn copy_name(field: &mut [libc::c_char], name: &str) -> io::Result<()> {
    if name.len() >= field.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in field.iter_mut().zip(name.bytes().chain([0])) {
        *to = from as libc::c_char;
    }
    Ok(())
}

fn netmask(prefix_length: u8) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix_length)).unwrap_or(0))
}

/// `sockaddr_in` in the shape ioctls take: port (2 bytes), then the address.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..6].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn netmasks() {
        assert_eq!(netmask(29), Ipv4Addr::new(255, 255, 255, 248));
        assert_eq!(netmask(0), Ipv4Addr::UNSPECIFIED);
        assert_eq!(netmask(32), Ipv4Addr::BROADCAST);
    }
}
