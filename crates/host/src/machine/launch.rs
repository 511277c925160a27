//! Launch: a private copy of an image's snapshot, from the request to an application that has answered `/run`.

use std::sync::Arc;

use super::hooks::{HookName, run_body};
use super::record::{MachineRecord, RunningProcess};
use super::restore::{self, Copy, Pages};
use super::{blocking, caught, remove};
use crate::layout::MachineFiles;
use crate::local::{LocalHost, Running};
use crate::snapshot::Manifest;
use crate::steps::Steps;
use crate::{HostError, LaunchMachine, StepTimings, failpoints, pressure};

/// A disk that holds nothing yet, and records.
const LAUNCH_BYTES: u64 = 4 << 20;

/// Whether a launch could begin.
pub(crate) fn room(host: &LocalHost) -> Result<(), HostError> {
    pressure::descriptors_for_a_machine()?;
    pressure::processes_for_a_machine()?;
    host.space.promise(LAUNCH_BYTES).map(drop)
}

/// Whatever fails, nothing of the machine stays.
pub(crate) async fn launch(host: &Arc<LocalHost>, request: LaunchMachine) -> Result<StepTimings, HostError> {
    let files = host.layout.machine(request.machine);
    let mut steps = Steps::start();
    match launch_steps(host, &request, &files, &mut steps).await {
        Ok(running) => {
            host.insert(request.machine, running);
            Ok(steps.finish())
        }
        Err(error) => {
            if let Err(error) = remove(&files.0, "remove a machine's files").await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(error, machine = %request.machine, "the files of a failed launch could not be removed");
            }
            Err(error)
        }
    }
}

async fn launch_steps(
    host: &Arc<LocalHost>,
    request: &LaunchMachine,
    files: &MachineFiles,
    steps: &mut Steps,
) -> Result<Arc<Running>, HostError> {
    let image = host.layout.image(&request.image);
    let snapshot = image.snapshot();
    let _space = host.space.promise(LAUNCH_BYTES)?;
    let using = host.image_use.read().await;
    if !snapshot.0.exists() {
        return Err(HostError::NoSuchImage(request.image.clone()));
    }
    let manifest = Manifest::load(&snapshot, host.engine.identity())?;
    host.verifier.verify(&request.image, &image, &manifest).await?;
    steps.mark("manifest");
    failpoints::LAUNCH_MANIFEST.pass().await?;
    let (made, key, shape) = (files.clone(), request.image.clone(), manifest.shape);
    blocking(move || restore::create_files(&made, &key, shape, &image), "make the machine's disk").await?;
    drop(using);
    steps.mark("disk");
    failpoints::LAUNCH_DISK.pass().await?;
    let working_set = Pages::of(host, &manifest);
    let copy = Copy { image: &request.image, files, shape, base: &snapshot, state: &snapshot, working_set, layer: None, proof: None };
    let running = restore::start(host, copy, steps).await?;
    let launched = caught(async {
        thaw(host, request, &running, steps).await?;
        record(&running, files).await
    });
    if let Err(error) = launched.await {
        running.end().await;
        return Err(error);
    }
    steps.mark("record");
    Ok(running)
}

/// From here on a restarted daemon takes the machine over.
async fn record(running: &Running, files: &MachineFiles) -> Result<(), HostError> {
    failpoints::LAUNCH_GUEST.pass().await?;
    let process = RunningProcess { identity: running.vm.process(), cell: running.cell.number };
    let record = MachineRecord { image: running.image.clone(), shape: Some(running.shape), launched: true, process: Some(process) };
    let files = files.clone();
    blocking(move || restore::note_running(&files).and_then(|()| record.write(&files)), "record the launch").await?;
    Ok(failpoints::LAUNCH_RECORD.pass().await?)
}

async fn thaw(host: &LocalHost, request: &LaunchMachine, running: &Running, steps: &mut Steps) -> Result<(), HostError> {
    let identity = restore::new_identity(request.machine, &request.name);
    let hook = request.run.as_ref().map(|(call, payload)| HookName::Run.request(call, run_body(&request.name, payload.as_deref())));
    let outcome = restore::thaw(host, running, Some(identity), hook, steps).await?;
    match (&request.run, outcome) {
        (Some((call, _)), Some(outcome)) => HookName::Run.check(call, outcome),
        _ => Ok(()),
    }
}
