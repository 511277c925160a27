//! `manifest.json`: what a snapshot is, whether this host can use it, and what its files must be.
//!
//! Format 2 is a [`document`] with the sums of every file the snapshot needs. Format 1 (before checksums of memory and disks) is still read: what it has sums
//! for is checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::document::{self, DocumentError};
use super::packed;
use super::sum::{Fingerprint, Sum};
use crate::layout::SnapshotFiles;
use crate::{ContainerConfig, HostError, MachineShape};

/// Raised when a snapshot of the old form cannot be read any more.
const FORMAT: u32 = 2;

/// What must be equal on the host that restores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineIdentity {
    /// `kvm`, `qemu-tcg` or `qemu-kvm`.
    pub engine: String,
    pub version: String,
    /// The guest-visible CPU.
    pub cpu_profile: String,
    /// Frequency of the guest's time stamp counter, which follows the host's.
    pub tsc_khz: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub agent_generation: u32,
    pub engine: EngineIdentity,
    pub shape: MachineShape,
    /// Bytes that the memory file occupies.
    pub memory_bytes: u64,
    pub files: Sums,
    /// `memory` is there as `memory.zst`; its sum is that of what comes out.
    #[serde(default)]
    pub packed: bool,
    /// Of an image's snapshot.
    pub config: Option<ContainerConfig>,
}

/// The sums of a snapshot's files.
pub(crate) type Sums = BTreeMap<SnapshotFile, Sum>;

/// A file that a snapshot consists of, by its name. Disks lie beside the snapshot's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum SnapshotFile {
    #[serde(rename = "state")]
    State,
    #[serde(rename = "memory")]
    Memory,
    #[serde(rename = "memory.runs")]
    MemoryRuns,
    #[serde(rename = "workingset")]
    WorkingSet,
    #[serde(rename = "disk.qcow2")]
    Disk,
    #[serde(rename = "overlay.qcow2")]
    OverlayTemplate,
    #[serde(rename = "root.ext4")]
    RootDisk,
}

impl SnapshotFile {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Memory => "memory",
            Self::MemoryRuns => "memory.runs",
            Self::WorkingSet => "workingset",
            Self::Disk => "disk.qcow2",
            Self::OverlayTemplate => "overlay.qcow2",
            Self::RootDisk => "root.ext4",
        }
    }

    /// Where it is, for the snapshot in `snapshot`.
    pub(crate) fn path(self, snapshot: &SnapshotFiles) -> PathBuf {
        let beside = || snapshot.0.parent().unwrap_or(Path::new("/"));
        match self {
            Self::State | Self::Memory | Self::MemoryRuns | Self::WorkingSet => snapshot.0.join(self.name()),
            Self::Disk | Self::OverlayTemplate | Self::RootDisk => beside().join(self.name()),
        }
    }
}

/// Format 1.
#[derive(Deserialize)]
struct Earlier {
    agent_generation: u32,
    engine: EngineIdentity,
    shape: MachineShape,
    memory_bytes: u64,
    state_sha256: String,
    runs_sha256: Option<String>,
    config: Option<ContainerConfig>,
}

impl From<Earlier> for Manifest {
    fn from(earlier: Earlier) -> Self {
        let mut files = Sums::from([(SnapshotFile::State, Sum::Sha256(earlier.state_sha256))]);
        files.extend(earlier.runs_sha256.map(|sum| (SnapshotFile::MemoryRuns, Sum::Sha256(sum))));
        Self {
            agent_generation: earlier.agent_generation,
            engine: earlier.engine,
            shape: earlier.shape,
            memory_bytes: earlier.memory_bytes,
            files,
            packed: false,
            config: earlier.config,
        }
    }
}

/// The counter's frequency is measured, so two measurements of one host differ a little: more than one part in a thousand is another clock.
const TSC_TOLERANCE: f64 = 0.001;

impl EngineIdentity {
    fn refuses(&self, theirs: &Self) -> Option<String> {
        let named = [
            ("engine", &self.engine, &theirs.engine),
            ("engine version", &self.version, &theirs.version),
            ("CPU profile", &self.cpu_profile, &theirs.cpu_profile),
        ];
        for (what, ours, others) in named {
            if ours != others {
                return Some(format!("it was made with {what} {others}, this host has {ours}: build the image again"));
            }
        }
        let ratio = self.tsc_khz as f64 / theirs.tsc_khz as f64;
        ((ratio - 1.0).abs() > TSC_TOLERANCE)
            .then(|| format!("its clock runs at {} kHz, this host's at {} kHz: build the image again", theirs.tsc_khz, self.tsc_khz))
    }
}

impl Manifest {
    pub(crate) fn new(engine: EngineIdentity, shape: MachineShape, memory_bytes: u64, files: Sums) -> Self {
        Self { agent_generation: emberbox_agent_protocol::GENERATION, engine, shape, memory_bytes, files, packed: false, config: None }
    }

    /// Reads a snapshot's manifest and checks that it fits this host. Its files are another matter: see [`super::verify`].
    pub(crate) fn load(files: &SnapshotFiles, host: &EngineIdentity) -> Result<Self, HostError> {
        let refuse = |reason: String| HostError::SnapshotRefused(format!("{}: {reason}", shown(&files.0)));
        let damaged = |error: DocumentError| HostError::SnapshotDamaged(format!("{}: {error}", shown(&files.manifest())));
        let earlier = |format, value| (format == 1).then(|| serde_json::from_value::<Earlier>(value).ok()).flatten().map(Self::from);
        let manifest = document::read(&files.manifest(), FORMAT, earlier).map_err(|error| match error {
            DocumentError::Format(_) => refuse(error.to_string()),
            DocumentError::Unreadable(_) | DocumentError::Damaged => damaged(error),
        })?;
        if manifest.agent_generation != emberbox_agent_protocol::GENERATION {
            return Err(refuse(format!("its agent speaks generation {}: build the image again", manifest.agent_generation)));
        }
        match host.refuses(&manifest.engine) {
            Some(reason) => Err(refuse(reason)),
            None => Ok(manifest),
        }
    }

    pub(crate) fn write(&self, files: &SnapshotFiles) -> std::io::Result<()> {
        document::write(&files.manifest(), FORMAT, self)
    }

    /// Reads the files among `which` that have sums and compares. Names the first that is not what it must be.
    pub(crate) fn check(&self, snapshot: &SnapshotFiles, which: impl Fn(SnapshotFile, &Sum) -> bool) -> Result<(), HostError> {
        for (file, sum) in self.files.iter().filter(|(file, sum)| which(**file, sum)) {
            let path = file.path(snapshot);
            let damaged = |what: String| HostError::SnapshotDamaged(format!("{}: {what}", shown(&path)));
            match sum.fits(&path) {
                Ok(true) => {}
                Ok(false) => return Err(damaged("its checksum differs".into())),
                Err(error) => return Err(damaged(format!("it cannot be read: {error}"))),
            }
        }
        Ok(())
    }

    /// As [`Manifest::check`], for a machine's own snapshot: everything is read but a disk that nobody has touched since it was summed, and memory that
    /// [`Manifest::unpack`] has proved.
    pub(crate) fn check_own(&self, snapshot: &SnapshotFiles) -> Result<(), HostError> {
        self.check(snapshot, |file, sum| match file {
            SnapshotFile::Disk => !Fingerprint::of(&file.path(snapshot)).is_ok_and(|now| sum.stands(&now)),
            SnapshotFile::Memory => !self.packed,
            SnapshotFile::State
            | SnapshotFile::MemoryRuns
            | SnapshotFile::WorkingSet
            | SnapshotFile::OverlayTemplate
            | SnapshotFile::RootDisk => true,
        })
    }

    /// Makes `memory` of a packed snapshot, proved.
    pub(crate) fn unpack(&self, snapshot: &SnapshotFiles) -> Result<(), HostError> {
        let damaged = || HostError::SnapshotDamaged(format!("{}: what it holds is not what was packed", shown(&snapshot.packed_memory())));
        let Some(expected) = self.files.get(&SnapshotFile::Memory) else { return Err(damaged()) };
        match packed::unpack(snapshot, u64::from(self.shape.memory_mib) << 20, expected) {
            Ok(true) => Ok(()),
            Ok(false) => Err(damaged()),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => Err(damaged()),
            Err(error) => Err(HostError::internal("unpack the machine's memory")(error)),
        }
    }
}

/// The end of a path: enough to find the file, and nothing of where the host keeps its data.
pub(crate) fn shown(path: &Path) -> String {
    let names: Vec<_> = path.iter().map(|name| name.to_string_lossy()).collect();
    let kept = names.iter().rposition(|name| name == "images" || name == "machines").unwrap_or(names.len().saturating_sub(2));
    names[kept..].join("/")
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
