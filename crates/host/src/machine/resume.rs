//! Resume: bring a suspended machine back as it was.
//!
//! The snapshot is good for one resume: once the guest runs, its disk moves on. So it is set aside before the guest's first instruction, and
//! put back when the process did not come up.

use std::sync::Arc;

use super::hooks::HookName;
use super::record::MachineRecord;
use super::restore::{self, Copy};
use crate::layout::{MachineFiles, sync_directory};
use crate::local::{LocalHost, remove_directory};
use crate::manifest::Manifest;
use crate::steps::Steps;
use crate::{HostError, ResumeMachine, StepTimings};

pub(crate) async fn resume(host: &Arc<LocalHost>, request: ResumeMachine) -> Result<StepTimings, HostError> {
    let files = host.layout.machine(request.machine);
    let mut steps = Steps::start();
    let record = MachineRecord::read(&files).map_err(|_| HostError::NoSuchMachine(request.machine))?;
    let manifest = Manifest::load(&files.snapshot(), host.engine.identity())?;
    let base = host.layout.image(&record.image).snapshot();
    steps.mark("manifest");
    set_aside(&files).map_err(HostError::internal("set the snapshot aside"))?;
    steps.mark("snapshot");
    let aside = files.resumed();
    let copy = Copy { image: &record.image, files: &files, shape: manifest.shape, base: &base, state: &aside, layer: Some(&aside) };
    let running = match restore::start(host, copy, &mut steps).await {
        Ok(running) => running,
        Err(error) => {
            put_back(&files);
            return Err(error);
        }
    };
    let hook = request.resume.as_ref().map(|call| HookName::Resume.request(call, String::new()));
    let thawed = restore::thaw(host, &running, None, hook, &mut steps).await;
    match thawed {
        Ok(outcome) => {
            host.insert(request.machine, running);
            match (&request.resume, outcome) {
                (Some(call), Some(outcome)) => HookName::Resume.check(call, outcome).map(|()| steps.finish()),
                _ => Ok(steps.finish()),
            }
        }
        Err(error) => {
            // The application is frozen until the agent has answered: its disk has not moved, and the snapshot is still good.
            running.end().await;
            put_back(&files);
            Err(error)
        }
    }
}

fn set_aside(files: &MachineFiles) -> std::io::Result<()> {
    remove_directory(&files.resumed().0)?;
    std::fs::rename(files.snapshot().0, files.resumed().0)?;
    sync_directory(&files.0)
}

fn put_back(files: &MachineFiles) {
    let restored = std::fs::rename(files.resumed().0, files.snapshot().0).and_then(|()| sync_directory(&files.0));
    if let Err(error) = restored {
        tracing::error!(%error, "the snapshot of a machine that could not be resumed was not put back");
    }
}
