//! What a guest does to virtio-balloon: registers, rings, moments to work in.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| emberbox_vmm::fuzzing::device(3, bytes));
