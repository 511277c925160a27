//! What a guest does to virtio-net: registers, rings, moments to work in.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| emberbox_vmm::fuzzing::device(1, bytes));
