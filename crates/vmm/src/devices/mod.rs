//! The machine's devices: virtio over memory-mapped registers, a serial port for the log, and the line that resets the machine.
//!
//! Every device folder has the same files: `device.rs` (what it is to the guest), files for its queues, `persist.rs` (what a snapshot keeps). What the guest
//! writes is a number to be checked, never a size or an offset; a driver that breaks the rules has its device stopped until it resets it.

mod balloon;
mod block;
mod bus;
mod entropy;
mod legacy;
mod net;
pub(crate) mod virtio;
mod worker;

#[cfg(test)]
mod tests;

pub(crate) use balloon::Balloon;
pub use block::DiskFormat;
pub(crate) use block::{Block, Disk, DiskError, Ring};
pub(crate) use bus::{Bus, lock};
pub(crate) use entropy::Entropy;
pub(crate) use legacy::{PortWrite, Ports, SerialRecord};
pub(crate) use net::Net;
pub(crate) use worker::{DEVICES as DEVICES_WORKER, DISK as DISK_WORKER, Workers};
