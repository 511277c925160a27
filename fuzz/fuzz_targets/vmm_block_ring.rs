//! The same of a disk whose reads are under way together.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| emberbox_vmm::fuzzing::device(4, bytes));
