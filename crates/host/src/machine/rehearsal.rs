//! The rehearsal of a launch, at the end of a capture: a test copy is made as any other, polled for `/validate` where the image wants that, and thrown away.
//! Where the engine can use it, what the copy touched of the image's memory is written down for those that follow.

use std::fs::File;
use std::sync::Arc;

use uuid::Uuid;

use super::hooks::HookName;
use super::restore::{self, Copy, Pages};
use super::{blocking, caught, remove};
use crate::layout::{ImageFiles, MachineFiles, write_atomically};
use crate::local::{LocalHost, Running};
use crate::snapshot::Manifest;
use crate::snapshot::manifest::SnapshotFile;
use crate::snapshot::sum::Sum;
use crate::steps::Steps;
use crate::working_set::{self, Recording};
use crate::{CaptureImage, HostError, MachineId, failpoints};

/// Whether there is anything to be learned from one.
pub(super) fn is_wanted(host: &LocalHost, request: &CaptureImage) -> bool {
    request.validate.is_some() || host.working_sets
}

pub(super) async fn rehearse(host: &Arc<LocalHost>, request: &CaptureImage, image: &ImageFiles) -> Result<(), HostError> {
    let machine = MachineId(Uuid::new_v4());
    let files = host.layout.machine(machine);
    let outcome = caught(with_copy(host, request, image, machine, &files)).await;
    remove(&files.0, "remove the test machine").await?;
    match outcome? {
        Some(list) => keep(host, image, list).await?,
        None if host.working_sets => tracing::info!(image = %request.image, "copies touch too much for a working set to be of use"),
        None => {}
    }
    Ok(failpoints::CAPTURE_WORKING_SET.pass().await?)
}

/// The working set, where it is recorded and of use.
async fn with_copy(
    host: &Arc<LocalHost>,
    request: &CaptureImage,
    image: &ImageFiles,
    machine: MachineId,
    files: &MachineFiles,
) -> Result<Option<Vec<u8>>, HostError> {
    restore::create_files(files, &request.image, request.shape, image).map_err(HostError::internal("make the test machine's disk"))?;
    failpoints::CAPTURE_TEST_FILES.pass().await?;
    let snapshot = image.snapshot();
    let mut working_set = Pages::Unknown;
    if host.working_sets {
        let memory = snapshot.memory();
        blocking(move || working_set::empty_cache(&File::open(memory)?), "empty the page cache of an image's memory").await?;
        working_set = Pages::Recorded;
    }
    let copy = Copy {
        image: &request.image,
        files,
        shape: request.shape,
        base: &snapshot,
        state: &snapshot,
        working_set,
        layer: None,
        proof: None,
    };
    let running = restore::start(host, copy, &mut Steps::start()).await?;
    let outcome = caught(use_copy(host, request, image, &running, machine)).await;
    running.end().await;
    outcome
}

async fn use_copy(
    host: &LocalHost,
    request: &CaptureImage,
    image: &ImageFiles,
    running: &Running,
    machine: MachineId,
) -> Result<Option<Vec<u8>>, HostError> {
    failpoints::CAPTURE_TEST_START.pass().await?;
    let identity = restore::new_identity(machine, &format!("microvm-{machine}"));
    restore::thaw(host, running, Some(identity), None, &mut Steps::start()).await?;
    let recording = match host.working_sets {
        true => {
            let (pid, base, length) = (running.vm.process().pid, image.snapshot().memory(), u64::from(request.shape.memory_mib) << 20);
            Some(blocking(move || Recording::begin(pid, base, length), "see what a copy touches").await?)
        }
        false => None,
    };
    if let Some(call) = &request.validate {
        HookName::Validate.call(&running.agent(host), call).await?;
    }
    match recording {
        Some(recording) => blocking(move || recording.finish(), "see what a copy touches").await,
        None => Ok(None),
    }
}

/// Makes the list a part of the snapshot.
async fn keep(host: &LocalHost, image: &ImageFiles, list: Vec<u8>) -> Result<(), HostError> {
    let files = image.snapshot();
    let mut manifest = Manifest::load(&files, host.engine.identity())?;
    let work = move || {
        write_atomically(&files.working_set(), &list)?;
        manifest.files.insert(SnapshotFile::WorkingSet, Sum::standing(&files.working_set())?);
        manifest.write(&files)
    };
    blocking(work, "write the working set").await
}
