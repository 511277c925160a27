//! Randomness for the guest's kernel: virtio-rng over the host's generator.

mod device;

pub(crate) use device::Entropy;
