//! The network card: virtio-net on a tap that the daemon made in the machine's cell.

mod device;
mod receive;
mod tap;

pub(crate) use device::Net;
