//! Disks: virtio-blk over raw files and qcow2 overlays with their backing chains.

mod device;
mod disk;
mod request;
mod ring;
mod structure;
mod together;

pub(crate) use device::Block;
pub use disk::DiskFormat;
pub(crate) use disk::{Disk, DiskError};
pub(crate) use ring::Ring;
