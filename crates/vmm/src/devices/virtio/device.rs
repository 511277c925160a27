//! The trait that each kind of device satisfies.

use std::io;
use std::os::fd::RawFd;

use super::{DeviceRecord, Queues};

/// Why a device is asked to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The driver has rung this queue's bell, or may have.
    Queue(usize),
    /// The host's end of the device has something.
    Host,
}

/// The driver broke the rules. Its device is stopped until the driver resets it; the machine goes on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("its queue is not valid")]
    Queue(#[source] virtio_queue::Error),
    #[error("a chain of descriptors leaves guest memory or never ends")]
    Chain,
    #[error("a chain of descriptors has no room for what the device must say")]
    NoRoom,
    #[error("the host's end of the device failed")]
    Host(#[source] io::Error),
}

impl From<virtio_queue::Error> for Fault {
    fn from(error: virtio_queue::Error) -> Self {
        Self::Queue(error)
    }
}

/// What became of one call of [`VirtioDevice::serve`].
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served {
    /// The driver wants to be told.
    pub interrupt: bool,
    /// There is more: the device has given way to others, or to a pause.
    pub more: bool,
}

/// A kind of device. Called with its transport locked, so one call at a time, and never while the machine is paused.
pub(crate) trait VirtioDevice: Send {
    /// Its number in the virtio specification, section 5.
    fn kind(&self) -> u32;
    /// Its own feature bits; the transport adds those of queues.
    fn features(&self) -> u64;
    fn queue_sizes(&self) -> &'static [u16];
    /// Its configuration space as the guest reads it.
    fn config(&self) -> &[u8];
    /// The guest writes its configuration space: any bytes at any offset.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}
    /// The driver is ready and has taken these features, all of them offered.
    fn start(&mut self, features: u64) -> io::Result<()>;
    /// The driver has reset the device.
    fn stop(&mut self);
    /// Does a bounded amount of work.
    fn serve(&mut self, wake: Wake, queues: &mut Queues<'_>) -> Result<Served, Fault>;
    /// A descriptor whose readiness wakes the device, once. A device that leaves something there says so ([`Served::more`]), or looks again when its first
    /// queue's bell rings.
    fn host_fd(&self) -> Option<RawFd> {
        None
    }
    /// The machine has been paused: what the device holds back for the host must reach it.
    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn save(&self) -> DeviceRecord;
    /// Takes back what [`Self::save`] gave. A record of another kind is refused.
    fn load(&mut self, record: &DeviceRecord) -> bool;
    /// Asks the guest for so many 4 KiB pages. False where the device does no such thing.
    fn ask_for_pages(&mut self, _pages: u32) -> bool {
        false
    }
}
