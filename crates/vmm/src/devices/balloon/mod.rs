//! Memory that the guest gives back: pages it is asked for (the balloon), and pages that it reports free of its own accord.

mod device;
mod persist;

pub(crate) use device::Balloon;
pub(crate) use persist::BalloonRecord;
