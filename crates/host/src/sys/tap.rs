//! Tap devices: the host's end of a guest's network card.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

nix::ioctl_write_int!(tun_set_interface, b'T', 202);

/// Makes a tap device with offload headers in the calling thread's network namespace. It exists while the descriptor, or a copy of it, is open.
pub(crate) fn create(name: &str) -> io::Result<OwnedFd> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(|error| {
        io::Error::new(error.kind(), format!("/dev/net/tun: {error} (is the kernel's tun module loaded? try `modprobe tun`)"))
    })?;
    // SAFETY: an ifreq of zeroes is valid: it is a name and a union of plain numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface name too long"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is and which outlives the call.
    unsafe { tun_set_interface(device.as_raw_fd(), (&raw mut request) as libc::c_ulong)? };
    Ok(device.into())
}
