//! A snapshot's state file: read without panic, and without memory beyond its own size.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| emberbox_vmm::fuzzing::snapshot(bytes));
