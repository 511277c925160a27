//! Disks: virtio-blk over raw files and qcow2 overlays with their backing chains.

mod device;
mod disk;
mod request;
mod structure;

pub(crate) use device::Block;
pub use disk::DiskFormat;
pub(crate) use disk::{Disk, DiskError};
