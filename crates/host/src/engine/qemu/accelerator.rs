//! What runs the guest's instructions: the CPU through KVM, or QEMU's translator.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;

const KVM_DEVICE: &str = "/dev/kvm";
/// Roughly x86-64-v2: emulated AVX would make cryptography slower, not faster.
const TCG_CPU: &str = "Nehalem";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    Tcg,
    Kvm {
        /// The group that may open `/dev/kvm`.
        group: u32,
    },
}

impl Accelerator {
    /// KVM if its device opens.
    pub(crate) fn kvm() -> io::Result<Self> {
        fs::OpenOptions::new().read(true).write(true).open(KVM_DEVICE)?;
        Ok(Self::Kvm { group: fs::metadata(KVM_DEVICE)?.gid() })
    }

    pub(super) fn engine_name(self) -> &'static str {
        match self {
            Self::Tcg => "qemu-tcg",
            Self::Kvm { .. } => "qemu-kvm",
        }
    }

    pub(super) fn cpu_model(self) -> &'static str {
        match self {
            Self::Tcg => TCG_CPU,
            Self::Kvm { .. } => "host,migratable=on",
        }
    }

    /// An emulated CPU does not speculate, so the guest's mitigations protect nothing; but page table isolation makes every system call empty the
    /// translator's TLB, which halves the guest's speed. Clearing each page that is allocated, a hardening of Debian's kernel, costs as much as using it.
    ///
    /// The time stamp counter is the host's and sound, but the kernel's watchdog compares it with ticks that an emulated machine gets late, and would fall
    /// back to counting ticks: a clock of 4 ms that loses time, and no rest for an idle guest.
    pub(super) fn kernel_arguments(self) -> &'static str {
        match self {
            Self::Tcg => "mitigations=off init_on_alloc=0 tsc=reliable",
            Self::Kvm { .. } => "",
        }
    }

    /// Names the CPU the guest sees: the same name, the same CPU.
    pub(super) fn cpu_profile(self) -> String {
        match self {
            Self::Tcg => format!("tcg-{TCG_CPU}"),
            Self::Kvm { .. } => {
                let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
                let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim());
                format!("host-{}", model.unwrap_or("unknown"))
            }
        }
    }

    pub(super) fn device_group(self) -> Option<u32> {
        match self {
            Self::Tcg => None,
            Self::Kvm { group } => Some(group),
        }
    }
}

/// Whether the CPU's flags promise hardware virtualization.
pub(crate) fn has_virtualization() -> bool {
    offers_virtualization(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn offers_virtualization(cpuinfo: &str) -> bool {
    cpuinfo.lines().filter(|line| line.starts_with("flags")).any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hardware_flags_count() {
        assert!(offers_virtualization("processor: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(!offers_virtualization("model name: vmx\nflags\t\t: fpu sse svm_lock\n"));
    }
}
