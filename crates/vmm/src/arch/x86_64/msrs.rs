//! Model-specific registers of a vCPU: which KVM says must be saved, in an order that they can be restored in.

use kvm_bindings::{Msrs, kvm_msr_entry};
use kvm_ioctls::VcpuFd;

use super::vcpu_state::{VcpuError, reading, writing};

/// Only takes effect when the APIC is in that mode and the counter has its value: after both.
const TSC_DEADLINE: u32 = 0x6e0;
const MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;
const MTRR_DEFAULT: u32 = 0x2ff;
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;
/// As many as KVM takes at once.
const CHUNK: usize = 128;

/// What firmware would have set.
pub(super) fn at_boot() -> [kvm_msr_entry; 2] {
    [entry(MISC_ENABLE, FAST_STRINGS), entry(MTRR_DEFAULT, MTRR_ENABLED_WRITE_BACK)]
}

fn entry(index: u32, data: u64) -> kvm_msr_entry {
    kvm_msr_entry { index, data, ..Default::default() }
}

/// Reads all of `indices` that this vCPU has; those of features that the profile hides do not exist.
pub(super) fn read(vcpu: &VcpuFd, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, VcpuError> {
    let mut found = Vec::with_capacity(indices.len());
    let mut left = indices;
    while !left.is_empty() {
        let wanted: Vec<_> = left.iter().take(CHUNK).map(|index| entry(*index, 0)).collect();
        let mut msrs = Msrs::from_entries(&wanted).map_err(|_| VcpuError::Msrs)?;
        let read = vcpu.get_msrs(&mut msrs).map_err(reading("model-specific registers"))?;
        found.extend_from_slice(&msrs.as_slice()[..read]);
        // KVM stops at the first that does not exist.
        let skipped = usize::from(read < wanted.len());
        left = &left[read + skipped..];
    }
    found.sort_by_key(|msr| msr.index == TSC_DEADLINE);
    Ok(found)
}

pub(super) fn write(vcpu: &VcpuFd, msrs: &[kvm_msr_entry]) -> Result<(), VcpuError> {
    for chunk in msrs.chunks(CHUNK) {
        let msrs = Msrs::from_entries(chunk).map_err(|_| VcpuError::Msrs)?;
        let written = vcpu.set_msrs(&msrs).map_err(writing("model-specific registers"))?;
        if let Some(refused) = chunk.get(written) {
            return Err(VcpuError::Msr { index: refused.index });
        }
    }
    Ok(())
}
