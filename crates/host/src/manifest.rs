//! `manifest.json`: what a snapshot is and whether this host can use it.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::{SnapshotFiles, write_atomically};
use crate::{ContainerConfig, HostError, MachineShape};

/// Raised when a snapshot of the old form cannot be read any more.
const FORMAT: u32 = 1;

/// What must be equal on the host that restores.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineIdentity {
    /// `qemu-tcg` or `qemu-kvm`.
    pub engine: String,
    pub version: String,
    /// The guest-visible CPU.
    pub cpu_profile: String,
    /// Frequency of the guest's time stamp counter, which follows the host's.
    pub tsc_khz: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub format: u32,
    pub agent_generation: u32,
    pub engine: EngineIdentity,
    pub shape: MachineShape,
    /// Bytes that the memory file occupies.
    pub memory_bytes: u64,
    /// SHA-256 of `state`, hexadecimal.
    pub state_sha256: String,
    /// SHA-256 of `memory.runs`; absent in a snapshot that holds all of its memory itself.
    pub runs_sha256: Option<String>,
    /// Of an image's snapshot.
    pub config: Option<ContainerConfig>,
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
    /// Describes files that are complete: whatever is there is summed.
    pub(crate) fn of(files: &SnapshotFiles, engine: EngineIdentity, shape: MachineShape, memory_bytes: u64) -> std::io::Result<Self> {
        let runs = files.memory_runs();
        Ok(Self {
            format: FORMAT,
            agent_generation: emberbox_agent_protocol::GENERATION,
            engine,
            shape,
            memory_bytes,
            state_sha256: sha256(&files.state())?,
            runs_sha256: runs.exists().then(|| sha256(&runs)).transpose()?,
            config: None,
        })
    }

    /// Reads and checks a snapshot's manifest: format, engine, and the files whose checksums it holds.
    pub(crate) fn load(files: &SnapshotFiles, host: &EngineIdentity) -> Result<Self, HostError> {
        let refuse = |reason: String| HostError::SnapshotRefused(format!("{}: {reason}", files.0.display()));
        let text = std::fs::read(files.manifest()).map_err(|error| refuse(format!("no manifest: {error}")))?;
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| refuse(format!("damaged manifest: {error}")))?;
        if manifest.format != FORMAT {
            return Err(refuse(format!("it has format {}, this version reads {FORMAT}", manifest.format)));
        }
        if manifest.agent_generation != emberbox_agent_protocol::GENERATION {
            return Err(refuse(format!("its agent speaks generation {}: build the image again", manifest.agent_generation)));
        }
        if let Some(reason) = host.refuses(&manifest.engine) {
            return Err(refuse(reason));
        }
        let mut sums = vec![(files.state(), &manifest.state_sha256)];
        sums.extend(manifest.runs_sha256.as_ref().map(|sum| (files.memory_runs(), sum)));
        for (path, expected) in sums {
            let actual = sha256(&path).map_err(|error| refuse(format!("{}: {error}", path.display())))?;
            if actual != *expected {
                return Err(refuse(format!("{} is damaged: its checksum differs", path.display())));
            }
        }
        Ok(manifest)
    }

    pub(crate) fn write(&self, files: &SnapshotFiles) -> std::io::Result<()> {
        write_atomically(&files.manifest(), &serde_json::to_vec_pretty(self).map_err(std::io::Error::other)?)
    }
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut digest = Sha256::new();
    std::io::copy(&mut file, &mut digest)?;
    Ok(hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn engine() -> EngineIdentity {
        EngineIdentity { engine: "qemu-tcg".into(), version: "7.2.1".into(), cpu_profile: "x86-64-v2".into(), tsc_khz: 2_900_000 }
    }

    fn written() -> (tempfile::TempDir, SnapshotFiles) {
        let directory = tempfile::tempdir().unwrap();
        let files = SnapshotFiles(directory.path().to_path_buf());
        std::fs::write(files.state(), b"state").unwrap();
        let shape = MachineShape { vcpus: 1, memory_mib: 512, disk_gib: 8 };
        Manifest::of(&files, engine(), shape, 1).unwrap().write(&files).unwrap();
        (directory, files)
    }

    #[test]
    fn a_manifest_is_what_was_written() {
        let (_directory, files) = written();
        assert_eq!(Manifest::load(&files, &engine()).unwrap().shape.memory_mib, 512);
    }

    #[test]
    fn a_flipped_byte_is_refused() {
        let (_directory, files) = written();
        std::fs::write(files.state(), b"statf").unwrap();
        assert!(matches!(Manifest::load(&files, &engine()), Err(HostError::SnapshotRefused(reason)) if reason.contains("damaged")));
    }

    #[test]
    fn another_engine_or_clock_is_refused() {
        let (_directory, files) = written();
        for other in [
            EngineIdentity { version: "10.0".into(), ..engine() },
            EngineIdentity { engine: "qemu-kvm".into(), ..engine() },
            EngineIdentity { cpu_profile: "host".into(), ..engine() },
            EngineIdentity { tsc_khz: 2_000_000, ..engine() },
        ] {
            assert!(matches!(Manifest::load(&files, &other), Err(HostError::SnapshotRefused(_))));
        }
        assert!(Manifest::load(&files, &EngineIdentity { tsc_khz: 2_900_100, ..engine() }).is_ok());
    }
}
