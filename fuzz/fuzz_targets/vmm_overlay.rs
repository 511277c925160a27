//! A damaged qcow2 overlay: refused, or read and written with errors.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| emberbox_vmm::fuzzing::overlay_of(bytes));
