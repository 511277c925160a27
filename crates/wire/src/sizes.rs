//! What a MicroVM of each size gets: the baseline is guaranteed, the guest sees the peak (documented, observed).

/// A row of the service's table of sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// `minimumMemoryInMiB`.
    pub baseline_memory_mib: u32,
    pub baseline_vcpu_millis: u32,
    pub peak_memory_mib: u32,
    pub peak_vcpus: u32,
    pub disk_gib: u32,
}

const fn size(baseline_memory_mib: u32, baseline_vcpu_millis: u32, peak_vcpus: u32, disk_gib: u32) -> Size {
    Size { baseline_memory_mib, baseline_vcpu_millis, peak_memory_mib: baseline_memory_mib * 4, peak_vcpus, disk_gib }
}

pub const SIZES: [Size; 5] =
    [size(512, 250, 1, 8), size(1024, 500, 2, 8), size(2048, 1000, 4, 8), size(4096, 2000, 8, 16), size(8192, 4000, 16, 32)];

/// The size of an image that asks for none.
pub const DEFAULT_SIZE: Size = SIZES[2];

impl Size {
    /// The row with exactly this `minimumMemoryInMiB`.
    pub fn for_baseline(memory_mib: i64) -> Option<Self> {
        SIZES.into_iter().find(|size| i64::from(size.baseline_memory_mib) == memory_mib)
    }
}
