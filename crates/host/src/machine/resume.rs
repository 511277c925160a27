//! Resume: bring a suspended machine back as it was.
//!
//! A snapshot is good for one resume: once the guest's application runs, its disk moves on. So the snapshot's directory says how far a resume has come:
//!
//! ```text
//! snapshot/ ──▶ resuming/ ──the process is restored──▶ resumed/ ──the agent is told──▶ the application runs
//!     ◀────────────┘ the process did not come up
//! ```
//! Until `resumed/` the application has not run, whatever fails or is killed, and the snapshot is put back (`adopt.rs` does so after a crash). From
//! then on a machine that dies is lost, like any that runs.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::hooks::HookName;
use super::record::MachineRecord;
use super::restore::{self, Copy, Pages};
use super::{blocking, caught};
use crate::layout::{MachineFiles, SnapshotFiles, sync_directory};
use crate::local::{LocalHost, Running, remove_directory};
use crate::snapshot::Manifest;
use crate::snapshot::document::DocumentError;
use crate::snapshot::manifest::shown;
use crate::steps::Steps;
use crate::{HostError, ImageKey, ResumeMachine, StepTimings, failpoints};

/// Names and records; what the guest writes is its own affair.
const RESUME_BYTES: u64 = 1 << 20;

pub(crate) async fn resume(host: &Arc<LocalHost>, request: ResumeMachine) -> Result<StepTimings, HostError> {
    let files = host.layout.machine(request.machine);
    let mut steps = Steps::start();
    let running = match caught(restore(host, &request, &files, &mut steps)).await {
        Ok(running) => running,
        Err(error) => {
            let back = move || {
                put_back(&files);
                Ok(())
            };
            // It says itself what it could not do.
            let _ = blocking(back, "put the snapshot back").await;
            return Err(error);
        }
    };
    let thawed = caught(async {
        failpoints::RESUME_USED.reach().await;
        restore::thaw(host, &running, None, None, &mut steps).await?;
        failpoints::RESUME_GUEST.reach().await;
        Ok(())
    });
    // Once more: what the machine was is in this process alone.
    if let Err(first) = thawed.await
        && let Err(error) = restore::thaw(host, &running, None, None, &mut steps).await
    {
        tracing::error!(machine = %request.machine, error = &first as &dyn std::error::Error, "a resumed machine did not answer");
        running.end().await;
        return Err(HostError::MachineLost { machine: request.machine, reason: error.to_string() });
    }
    let noted = files.clone();
    if let Err(error) = blocking(move || restore::note_running(&noted), "note that the machine runs").await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, machine = %request.machine, "a machine that runs is still noted as standing still");
    }
    host.insert(request.machine, running.clone());
    if let Some(call) = &request.resume {
        match HookName::Resume.call(&running.agent(host), call).await {
            Ok(()) => {
                steps.mark("resume_hook");
                // The machine runs, whatever fails from here on.
                let passed = caught(async {
                    failpoints::RESUME_HOOK.reach().await;
                    Ok(())
                });
                if let Err(error) = passed.await {
                    tracing::warn!(machine = %request.machine, error = &error as &dyn std::error::Error, "a step after a resume failed");
                }
            }
            // The application's own failure: the machine runs, and control decides.
            Err(error @ HostError::Hook { .. }) => return Err(error),
            Err(error) => {
                host.remove(request.machine);
                running.end().await;
                return Err(HostError::MachineLost { machine: request.machine, reason: error.to_string() });
            }
        }
    }
    Ok(steps.finish())
}

/// Up to a process with the machine's state in it, its application frozen.
async fn restore(
    host: &Arc<LocalHost>,
    request: &ResumeMachine,
    files: &MachineFiles,
    steps: &mut Steps,
) -> Result<Arc<Running>, HostError> {
    let lost = |what: String| HostError::MachineLost { machine: request.machine, reason: format!("its snapshot is damaged: {what}") };
    let own = |error| match error {
        // Nothing can bring back what is not there any more; an image may be restored from a backup.
        HostError::SnapshotDamaged(what) => lost(what),
        other => other,
    };
    let record = match MachineRecord::read(files) {
        Err(DocumentError::Unreadable(_)) => return Err(HostError::NoSuchMachine(request.machine)),
        record => record.map_err(|error| lost(format!("{}: {error}", shown(&files.record()))))?,
    };
    let manifest = Manifest::load(&files.snapshot(), host.engine.identity()).map_err(own)?;
    let (base, working_set) = verified_image(host, &record.image).await?;
    steps.mark("manifest");
    failpoints::RESUME_MANIFEST.pass().await?;
    let _space = host.space.promise(RESUME_BYTES + if manifest.packed { manifest.memory_bytes } else { 0 })?;
    let owner = files.clone();
    blocking(move || rename(&owner.snapshot().0, &owner.resuming().0, &owner), "set the snapshot aside").await?;
    steps.mark("snapshot");
    failpoints::RESUME_SNAPSHOT.pass().await?;
    let aside = files.resuming();
    let manifest = match manifest.packed {
        true => unpack(manifest, &aside, steps).await.map_err(own)?,
        false => manifest,
    };
    let (shape, packed, proved) = (manifest.shape, manifest.packed, aside.clone());
    // Beside the start of the process: reading is what the guest is going to do anyway.
    let proof = tokio::task::spawn_blocking(move || manifest.check_own(&proved));
    let copy =
        Copy { image: &record.image, files, shape, base: &base, state: &aside, working_set, layer: Some(&aside), proof: Some(proof) };
    let running = restore::start(host, copy, steps).await.map_err(own)?;
    let owner = files.clone();
    if let Err(error) = blocking(move || rename(&owner.resuming().0, &owner.resumed().0, &owner), "mark the snapshot as used").await {
        running.end().await;
        return Err(error);
    }
    if packed && let Err(error) = std::fs::remove_file(files.resumed().packed_memory()) {
        tracing::warn!(%error, machine = %request.machine, "compressed memory that is not needed any more could not be removed");
    }
    Ok(running)
}

/// Makes the file that is mapped; the packed one goes with the rest of the snapshot at the next suspension.
async fn unpack(manifest: Manifest, aside: &SnapshotFiles, steps: &mut Steps) -> Result<Manifest, HostError> {
    let aside = aside.clone();
    let unpacked = tokio::task::spawn_blocking(move || manifest.unpack(&aside).map(|()| manifest)).await;
    let manifest = unpacked.map_err(HostError::internal("unpack the machine's memory"))?;
    steps.mark("unpack");
    failpoints::UNPACK_MEMORY.pass().await?;
    manifest
}

/// The snapshot of an image that is what it was when it was captured.
async fn verified_image(host: &LocalHost, key: &ImageKey) -> Result<(SnapshotFiles, Pages), HostError> {
    let image = host.layout.image(key);
    if !image.snapshot().0.exists() {
        return Err(HostError::NoSuchImage(key.clone()));
    }
    let manifest = Manifest::load(&image.snapshot(), host.engine.identity())?;
    host.verifier.verify(key, &image, &manifest).await?;
    Ok((image.snapshot(), Pages::of(host, &manifest)))
}

/// A resume that did not get as far as `resumed/` has changed nothing.
pub(super) fn put_back(files: &MachineFiles) {
    if files.resuming().0.exists()
        && let Err(error) = rename(&files.resuming().0, &files.snapshot().0, files)
    {
        tracing::error!(%error, machine = %files.0.display(), "the snapshot of a machine that could not be resumed was not put back");
    }
}

fn rename(from: &Path, to: &Path, files: &MachineFiles) -> io::Result<()> {
    remove_directory(to)?;
    std::fs::rename(from, to)?;
    sync_directory(&files.0)
}
