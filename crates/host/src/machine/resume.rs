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
use super::restore::{self, Copy};
use crate::layout::{MachineFiles, sync_directory};
use crate::local::{LocalHost, Running, remove_directory};
use crate::manifest::Manifest;
use crate::steps::Steps;
use crate::{HostError, ResumeMachine, StepTimings, failpoints};

pub(crate) async fn resume(host: &Arc<LocalHost>, request: ResumeMachine) -> Result<StepTimings, HostError> {
    let files = host.layout.machine(request.machine);
    let mut steps = Steps::start();
    let running = match restore(host, &request, &files, &mut steps).await {
        Ok(running) => running,
        Err(error) => {
            put_back(&files);
            return Err(error);
        }
    };
    if let Err(error) = restore::thaw(host, &running, None, None, &mut steps).await {
        running.end().await;
        return Err(HostError::MachineLost { machine: request.machine, reason: error.to_string() });
    }
    failpoints::RESUME_GUEST.reach().await;
    host.insert(request.machine, running.clone());
    if let Some(call) = &request.resume {
        match HookName::Resume.call(&host.agent(&running.cell), call).await {
            Ok(()) => {
                steps.mark("resume_hook");
                failpoints::RESUME_HOOK.reach().await;
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
    let record = MachineRecord::read(files).map_err(|_| HostError::NoSuchMachine(request.machine))?;
    let manifest = Manifest::load(&files.snapshot(), host.engine.identity())?;
    let base = host.layout.image(&record.image).snapshot();
    steps.mark("manifest");
    failpoints::RESUME_MANIFEST.pass().await?;
    rename(&files.snapshot().0, &files.resuming().0, files).map_err(HostError::internal("set the snapshot aside"))?;
    steps.mark("snapshot");
    failpoints::RESUME_SNAPSHOT.pass().await?;
    let aside = files.resuming();
    let copy = Copy { image: &record.image, files, shape: manifest.shape, base: &base, state: &aside, layer: Some(&aside) };
    let running = restore::start(host, copy, steps).await?;
    if let Err(error) = rename(&files.resuming().0, &files.resumed().0, files) {
        running.end().await;
        return Err(HostError::internal("mark the snapshot as used")(error));
    }
    failpoints::RESUME_USED.reach().await;
    Ok(running)
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
