//! The host's end: a tap that was handed in open. Frames carry the header of virtio 1, so that checksums and segmentation pass through untouched.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use virtio_bindings::virtio_net::{VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6};
use vm_memory::VolatileSlice;
use vm_memory::bitmap::BitmapSlice;

/// Bytes of `struct virtio_net_hdr_v1`.
pub(super) const HEADER: usize = 12;
/// The largest packet that segmentation offload lets through, with its Ethernet and virtio headers.
pub(super) const MAX_FRAME: usize = HEADER + 14 + 65_536;

nix::ioctl_write_ptr!(tun_set_header_size, b'T', 216, libc::c_int);
nix::ioctl_write_int!(tun_set_offload, b'T', 208);

const OFFLOAD_CHECKSUM: libc::c_ulong = 1;
const OFFLOAD_TSO4: libc::c_ulong = 2;
const OFFLOAD_TSO6: libc::c_ulong = 4;

pub(super) struct Tap {
    file: File,
    /// False for a stand-in that knows none of a tap's calls.
    is_tap: bool,
}

impl Tap {
    pub(super) fn new(fd: OwnedFd, is_tap: bool) -> io::Result<Self> {
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        Ok(Self { file: fd.into(), is_tap })
    }

    /// Sets the tap up for what the driver can take. A driver that takes fewer features gets packets made whole by the host's kernel.
    pub(super) fn configure(&self, features: u64) -> io::Result<()> {
        if !self.is_tap {
            return Ok(());
        }
        let size = HEADER as libc::c_int;
        // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
        unsafe { tun_set_header_size(self.file.as_raw_fd(), &size)? };
        let has = |bit: u32, offload| if features & 1 << bit != 0 { offload } else { 0 };
        let offload = has(VIRTIO_NET_F_GUEST_CSUM, OFFLOAD_CHECKSUM)
            | has(VIRTIO_NET_F_GUEST_TSO4, OFFLOAD_TSO4)
            | has(VIRTIO_NET_F_GUEST_TSO6, OFFLOAD_TSO6);
        // SAFETY: TUNSETOFFLOAD takes a number.
        unsafe { tun_set_offload(self.file.as_raw_fd(), offload as _)? };
        Ok(())
    }

    pub(super) fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// The next frame with its header; none when there is nothing.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self.file.read(buffer) {
            Ok(length) => Ok(Some(length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a frame that lies in guest memory. One that the kernel refuses is dropped, as on a cable.
    pub(super) fn send<B: BitmapSlice>(&mut self, pieces: &[VolatileSlice<'_, B>]) {
        let guards: Vec<_> = pieces.iter().map(VolatileSlice::ptr_guard).collect();
        let vectors: Vec<_> = guards
            .iter()
            // SAFETY: the guard keeps the memory mapped. The guest may change it meanwhile: the kernel copies each byte once, and what it gets is
            // the guest's own affair.
            .map(|guard| IoSlice::new(unsafe { std::slice::from_raw_parts(guard.as_ptr(), guard.len()) }))
            .collect();
        let _ = self.file.write_vectored(&vectors);
    }
}
