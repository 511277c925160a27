//! Descriptors, sorted into what a request says they are. Checked before anything is made of them.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;

use super::message::{MachineSpec, WorkingSet};
use crate::arch::layout::MAX_DEVICES;
use crate::devices::{DiskFormat, Ring};

const VCPUS: std::ops::RangeInclusive<u8> = 1..=16;
/// A kernel, its decompression and its initramfs need this much; 32 GiB is the largest machine.
const MEMORY_MIB: std::ops::RangeInclusive<u32> = 128..=32 * 1024;
/// What stays for disks beside network, entropy and balloon.
const MAX_DISKS: usize = MAX_DEVICES - 3;
const MAX_LAYERS: usize = 8;
const MAX_SERIAL: usize = 20;

/// What fresh and restored machines have in common.
pub(crate) struct Common {
    pub vcpus: u8,
    pub memory_mib: u32,
    pub mac: [u8; 6],
    listener: Option<UnixListener>,
    pub tap: OwnedFd,
    pub disks: Vec<DiskFiles>,
    /// The first disk's reads are under way by it. Not the daemon's to give: the monitor has made it.
    pub ring: Option<Ring>,
}

impl Common {
    /// The socket by which a restarted daemon finds the machine.
    pub(super) fn take_listener(&mut self) -> Result<UnixListener, RequestError> {
        self.listener.take().ok_or(RequestError::Descriptors)
    }
}

pub(crate) struct DiskFiles {
    pub serial: String,
    pub read_only: bool,
    pub layers: Vec<(DiskFormat, File)>,
}

pub(crate) struct BootFiles {
    pub kernel: File,
    pub initramfs: File,
    pub memory: File,
}

pub(crate) struct RestoreFiles {
    pub base: File,
    pub state: File,
    pub layer: Option<(File, File)>,
    pub working_set: WorkingSetFile,
}

/// As [`WorkingSet`], with its list.
pub(crate) enum WorkingSetFile {
    Unknown,
    Recorded,
    Known(File),
}

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("a machine has 1 to 16 vCPUs, not {0}")]
    Vcpus(u8),
    #[error("a machine has {least} to {most} MiB of memory, not {0}", least = MEMORY_MIB.start(), most = MEMORY_MIB.end())]
    Memory(u32),
    #[error("a machine has at most {MAX_DISKS} disks of at most {MAX_LAYERS} layers, with serials of 1 to {MAX_SERIAL} bytes")]
    Disks,
    #[error("the request came with too few or too many descriptors")]
    Descriptors,
}

/// Descriptors in the order they came in.
pub(crate) struct Descriptors(std::vec::IntoIter<OwnedFd>);

impl Descriptors {
    pub(crate) fn new(fds: Vec<OwnedFd>) -> Self {
        Self(fds.into_iter())
    }

    pub(crate) fn next(&mut self) -> Result<OwnedFd, RequestError> {
        self.0.next().ok_or(RequestError::Descriptors)
    }

    fn file(&mut self) -> Result<File, RequestError> {
        self.next().map(File::from)
    }

    /// There is none left.
    pub(crate) fn end(mut self) -> Result<(), RequestError> {
        if self.0.next().is_none() { Ok(()) } else { Err(RequestError::Descriptors) }
    }

    pub(crate) fn boot(mut self, spec: MachineSpec) -> Result<(Common, BootFiles), RequestError> {
        let common = self.common(spec)?;
        let files = BootFiles { kernel: self.file()?, initramfs: self.file()?, memory: self.file()? };
        self.end()?;
        Ok((common, files))
    }

    pub(crate) fn restore(mut self, spec: MachineSpec, layered: bool, set: WorkingSet) -> Result<(Common, RestoreFiles), RequestError> {
        let common = self.common(spec)?;
        let (base, state) = (self.file()?, self.file()?);
        let layer = if layered { Some((self.file()?, self.file()?)) } else { None };
        let working_set = match set {
            WorkingSet::Unknown => WorkingSetFile::Unknown,
            WorkingSet::Recorded => WorkingSetFile::Recorded,
            WorkingSet::Known => WorkingSetFile::Known(self.file()?),
        };
        self.end()?;
        Ok((common, RestoreFiles { base, state, layer, working_set }))
    }

    fn common(&mut self, spec: MachineSpec) -> Result<Common, RequestError> {
        check(&spec)?;
        let (listener, tap) = (Some(self.next()?.into()), self.next()?);
        let mut disks = Vec::with_capacity(spec.disks.len());
        for disk in spec.disks {
            let layers = disk.layers.into_iter().map(|format| Ok((format, self.file()?))).collect::<Result<_, _>>()?;
            disks.push(DiskFiles { serial: disk.serial, read_only: disk.read_only, layers });
        }
        Ok(Common { vcpus: spec.vcpus, memory_mib: spec.memory_mib, mac: spec.mac, listener, tap, disks, ring: None })
    }
}

/// Whether a machine of so many vCPUs can be.
pub(crate) fn check_vcpus(vcpus: u8) -> Result<(), RequestError> {
    if VCPUS.contains(&vcpus) { Ok(()) } else { Err(RequestError::Vcpus(vcpus)) }
}

fn check(spec: &MachineSpec) -> Result<(), RequestError> {
    check_vcpus(spec.vcpus)?;
    if !MEMORY_MIB.contains(&spec.memory_mib) {
        return Err(RequestError::Memory(spec.memory_mib));
    }
    let fits = |disk: &super::DiskSpec| (1..=MAX_LAYERS).contains(&disk.layers.len()) && (1..=MAX_SERIAL).contains(&disk.serial.len());
    if spec.disks.len() > MAX_DISKS || !spec.disks.iter().all(fits) {
        return Err(RequestError::Disks);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::control::DiskSpec;

    fn spec(vcpus: u8, memory_mib: u32, layers: usize) -> MachineSpec {
        let disk = DiskSpec { serial: "root".into(), read_only: false, layers: vec![DiskFormat::Raw; layers] };
        MachineSpec { vcpus, memory_mib, mac: [2; 6], disks: vec![disk] }
    }

    fn descriptors(count: usize) -> Descriptors {
        Descriptors::new((0..count).map(|_| tempfile::tempfile().unwrap().into()).collect())
    }

    #[test]
    fn the_number_of_descriptors_must_be_exact() {
        assert!(descriptors(7).boot(spec(1, 512, 2)).is_ok());
        assert!(descriptors(6).restore(spec(1, 512, 2), false, WorkingSet::Unknown).is_ok());
        assert!(descriptors(8).restore(spec(1, 512, 2), true, WorkingSet::Recorded).is_ok());
        assert!(descriptors(9).restore(spec(1, 512, 2), true, WorkingSet::Known).is_ok());
        assert_eq!(descriptors(8).restore(spec(1, 512, 2), true, WorkingSet::Known).err(), Some(RequestError::Descriptors));
        for count in [0, 1, 6, 8] {
            assert_eq!(descriptors(count).boot(spec(1, 512, 2)).err(), Some(RequestError::Descriptors));
        }
    }

    #[test]
    fn a_machine_has_bounds() {
        for (vcpus, memory, layers) in [(0, 512, 1), (17, 512, 1), (1, 0, 1), (1, 64 * 1024, 1), (1, 512, 0), (1, 512, 9)] {
            assert!(descriptors(20).boot(spec(vcpus, memory, layers)).is_err());
        }
    }
}
