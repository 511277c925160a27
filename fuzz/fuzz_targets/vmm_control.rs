//! What a peer sends to the monitor's control socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| emberbox_vmm::fuzzing::control(bytes));
