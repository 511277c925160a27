//! The QEMU that this host has: where it is, its version, and what that version can be trusted with.

use std::io;
use std::process::Command;

use super::Accelerator;

const BINARY: &str = "qemu-system-x86_64";

/// The first version whose translator runs several CPUs of one guest soundly.
///
/// Before it, a CPU that translated code while another replaced it could keep the old for good (QEMU's commit deba78709ae8). Kernels replace their own code
/// while they boot: one boot in a hundred met a breakpoint that was gone, and panicked.
const SOUND_IN_PARALLEL: (u32, u32) = (8, 1);

pub(super) struct Program {
    pub binary: &'static str,
    pub version: String,
    pub accelerator: Accelerator,
}

impl Program {
    /// Finds QEMU.
    pub(super) fn find(accelerator: Accelerator) -> io::Result<Self> {
        let output = Command::new(BINARY)
            .arg("--version")
            .output()
            .map_err(|error| io::Error::new(error.kind(), format!("{BINARY}: {error} (install it: apt-get install qemu-system-x86)")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().and_then(|line| line.strip_prefix("QEMU emulator version ")).map(str::trim);
        let version = version.ok_or_else(|| io::Error::other(format!("{BINARY} --version says: {text}")))?;
        Ok(Self { binary: BINARY, version: version.to_owned(), accelerator })
    }

    /// Whether the translator gives each CPU of a guest a thread; otherwise they take turns on one.
    pub(super) fn translates_in_parallel(&self) -> bool {
        major_and_minor(&self.version).is_some_and(|version| version >= SOUND_IN_PARALLEL)
    }

    /// For people: what this version costs.
    pub(super) fn remark(&self) -> Option<String> {
        let slower = self.accelerator == Accelerator::Tcg && !self.translates_in_parallel();
        let (major, minor) = SOUND_IN_PARALLEL;
        slower.then(|| format!("the CPUs of a guest take turns on one of the host's, because QEMU runs them in parallel soundly from {major}.{minor} on and this is {}", self.version))
    }
}

fn major_and_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(|other: char| !other.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(version: &str) -> Program {
        Program { binary: BINARY, version: version.into(), accelerator: Accelerator::Tcg }
    }

    #[test]
    fn only_a_sound_translator_runs_cpus_in_parallel() {
        for version in ["8.1.0", "8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)", "10.0.2 (Debian 1:10.0.2+ds-2)"] {
            assert!(program(version).translates_in_parallel(), "{version}");
        }
        for version in ["7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)", "8.0.4", "not a number"] {
            assert!(!program(version).translates_in_parallel(), "{version}");
        }
    }

    #[test]
    fn what_an_old_version_costs_is_said_only_of_the_translator() {
        assert!(program("7.2.22").remark().is_some_and(|remark| remark.contains("7.2.22")));
        assert_eq!(program("10.0.2").remark(), None);
        assert_eq!(Program { accelerator: Accelerator::Kvm { group: 0 }, ..program("7.2.22") }.remark(), None);
    }
}
