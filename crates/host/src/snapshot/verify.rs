//! Images that have been proved. An image's memory and disks may be gigabytes that no single launch needs: they are read and summed once, at the first use or
//! in the background after the daemon's start, and again only when one of them is not the file that was summed (see [`Fingerprint`]). Whoever
//! captured the image has summed it: its manifest says so until the next boot of the host.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use super::manifest::{Manifest, SnapshotFile};
use super::sum::Fingerprint;
use crate::layout::ImageFiles;
use crate::machine::blocking;
use crate::{HostError, ImageKey, failpoints};

/// The files of one image as they were when they were judged.
type Seen = BTreeMap<SnapshotFile, Fingerprint>;

#[derive(Debug, Clone)]
struct Judged {
    seen: Seen,
    damage: Option<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Verifier {
    /// One at a time reads an image; others wait for what it finds.
    images: Mutex<HashMap<ImageKey, Arc<tokio::sync::Mutex<Option<Judged>>>>>,
}

impl Verifier {
    /// Returns when the files of the image are known to be what its manifest says. Costs a few `stat` unless they have to be read.
    pub(crate) async fn verify(&self, key: &ImageKey, files: &ImageFiles, manifest: &Manifest) -> Result<(), HostError> {
        let seen = look(files, manifest)?;
        if manifest.files.iter().all(|(file, sum)| seen.get(file).is_some_and(|now| sum.stands(now))) {
            return Ok(());
        }
        let entry = self.images.lock().unwrap_or_else(PoisonError::into_inner).entry(key.clone()).or_default().clone();
        let mut judged = entry.lock().await;
        if let Some(judged) = judged.as_ref().filter(|judged| judged.seen == seen) {
            return match &judged.damage {
                Some(damage) => Err(HostError::SnapshotDamaged(damage.clone())),
                None => Ok(()),
            };
        }
        let (snapshot, owned) = (files.snapshot(), manifest.clone());
        let since = std::time::Instant::now();
        let outcome = blocking(move || Ok(owned.check(&snapshot, |_, _| true)), "verify an image").await?;
        tracing::info!(image = %key, ms = since.elapsed().as_millis(), whole = outcome.is_ok(), "an image's files were read and compared with their checksums");
        failpoints::VERIFY_IMAGE.pass().await?;
        let damage = match &outcome {
            Err(HostError::SnapshotDamaged(damage)) => Some(damage.clone()),
            _ => None,
        };
        *judged = Some(Judged { seen, damage });
        outcome
    }

    /// Forgets an image that has been deleted.
    pub(crate) fn forget(&self, key: &ImageKey) {
        self.images.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

fn look(files: &ImageFiles, manifest: &Manifest) -> Result<Seen, HostError> {
    let snapshot = files.snapshot();
    let fingerprint = |file: &SnapshotFile| {
        let path = file.path(&snapshot);
        let seen = Fingerprint::of(&path);
        seen.map(|seen| (*file, seen)).map_err(|error| HostError::SnapshotDamaged(format!("{}: {error}", super::manifest::shown(&path))))
    };
    manifest.files.keys().map(fingerprint).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::manifest::{EngineIdentity, Sums};
    use super::super::sum::Sum;
    use super::*;
    use crate::MachineShape;

    fn image(standing: bool) -> (tempfile::TempDir, ImageFiles, Manifest) {
        let directory = tempfile::tempdir().unwrap();
        let files = ImageFiles(directory.path().join("images/i"));
        std::fs::create_dir_all(files.snapshot().0).unwrap();
        let mut sums = Sums::new();
        for file in [SnapshotFile::State, SnapshotFile::Memory, SnapshotFile::RootDisk] {
            let path = file.path(&files.snapshot());
            std::fs::write(&path, file.name()).unwrap();
            sums.insert(file, if standing { Sum::standing(&path) } else { Sum::of(&path) }.unwrap());
        }
        let engine = EngineIdentity { engine: "e".into(), version: "1".into(), cpu_profile: "c".into(), tsc_khz: 1 };
        let manifest = Manifest::new(engine, MachineShape { vcpus: 1, memory_mib: 1, disk_gib: 1 }, 0, sums);
        (directory, files, manifest)
    }

    #[tokio::test]
    async fn damage_is_found_before_each_use_and_said_with_the_file() {
        for standing in [true, false] {
            let (_directory, files, manifest) = image(standing);
            let key = ImageKey::new("i").unwrap();
            let verifier = Verifier::default();
            verifier.verify(&key, &files, &manifest).await.unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::write(files.root_disk(), "toor.ext4").unwrap();
            for _ in 0..2 {
                let outcome = verifier.verify(&key, &files, &manifest).await;
                assert!(matches!(outcome, Err(HostError::SnapshotDamaged(reason)) if reason.contains("images/i/root.ext4")));
            }
            // Put right by the operator: another file, read again.
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::write(files.root_disk(), "root.ext4").unwrap();
            verifier.verify(&key, &files, &manifest).await.unwrap();
            std::fs::remove_file(files.snapshot().memory()).unwrap();
            assert!(matches!(verifier.verify(&key, &files, &manifest).await, Err(HostError::SnapshotDamaged(_))));
        }
    }
}
