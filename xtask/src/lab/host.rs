//! What this host can do, and the frequency its counter has.

use std::fs;

// One copy of the measurement, and of the only unsafe block it needs: the host crate's.
#[path = "../../../crates/host/src/sys/tsc.rs"]
#[allow(unsafe_code)]
mod tsc;

pub(super) use tsc::measure_khz;

/// As the daemon chooses its engine: by the CPU's flags, and the device has to open.
pub(super) fn has_kvm() -> bool {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = info.lines().find(|line| line.starts_with("flags")).unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm")
        && fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}
