//! What all virtio devices have in common (virtio 1.2): registers, queues, chains of descriptors.

mod device;
mod persist;
mod queues;
mod segments;
mod transport;

pub(crate) use device::{Fault, Served, VirtioDevice, Wake};
pub(crate) use persist::{DeviceRecord, TransportRecord};
pub(crate) use queues::{Queues, TURN, Turn, add_used_together, serve_chains, wants_interrupt};
pub(crate) use segments::Segments;
pub(crate) use transport::{Interrupts, QUEUE_NOTIFY, Transport};

#[cfg(test)]
pub(crate) mod testing;
