//! Stop: end a machine, running or suspended, and delete its files.

use std::sync::Arc;

use super::blocking;
use super::hooks::HookName;
use super::record::MachineRecord;
use crate::layout::{Layout, MachineFiles};
use crate::local::{LocalHost, remove_directory};
use crate::steps::Steps;
use crate::{HostError, MachineId, StepTimings, StopMachine, failpoints};

pub(crate) async fn stop(host: &Arc<LocalHost>, request: StopMachine) -> Result<StepTimings, HostError> {
    let mut steps = Steps::start();
    if let Some(running) = host.running(request.machine) {
        if let Some(hook) = &request.terminate {
            // The end comes whatever the application says.
            if let Err(error) = HookName::Terminate.call(&running.agent(host), hook).await {
                tracing::info!(error = &error as &dyn std::error::Error, machine = %request.machine, "the terminate hook failed");
            }
            steps.mark("terminate_hook");
            failpoints::STOP_HOOK.pass().await?;
        }
        host.remove(request.machine);
        running.end().await;
        steps.mark("process_end");
        failpoints::STOP_PROCESS_END.pass().await?;
    }
    let files = host.layout.machine(request.machine);
    let kept = request.keep_disk.then(|| host.layout.clone());
    let removed = move || match kept {
        Some(layout) if files.0.exists() => keep(&layout, request.machine, &files),
        Some(_) | None => remove_directory(&files.0),
    };
    blocking(removed, "delete a machine's files").await?;
    steps.mark("files");
    failpoints::STOP_FILES.pass().await?;
    Ok(steps.finish())
}

/// What is left of a machine that died, for who wants to know why, or wants its files (`salvage.rs`).
fn keep(layout: &Layout, machine: MachineId, files: &MachineFiles) -> std::io::Result<()> {
    let kept = layout.kept(machine).0;
    remove_directory(&kept)?;
    // While its record still says that the image is in use.
    if let Err(error) = link_image(layout, files) {
        tracing::warn!(%error, %machine, "what is kept of a machine lacks its image's disks");
    }
    std::fs::rename(&files.0, &kept)
}

/// Links cost nothing and outlive the image.
fn link_image(layout: &Layout, files: &MachineFiles) -> std::io::Result<()> {
    let record = MachineRecord::read(files).map_err(std::io::Error::other)?;
    let image = layout.image(&record.image);
    for (from, to) in [(image.disk(), files.image_disk()), (image.root_disk(), files.image_root_disk())] {
        match std::fs::hard_link(from, to) {
            // Of a stop that was cut off.
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
