//! Stop: end a machine, running or suspended, and delete its files.

use std::path::Path;
use std::sync::Arc;

use super::blocking;
use super::hooks::HookName;
use crate::local::{LocalHost, remove_directory};
use crate::steps::Steps;
use crate::{HostError, StepTimings, StopMachine, failpoints};

pub(crate) async fn stop(host: &Arc<LocalHost>, request: StopMachine) -> Result<StepTimings, HostError> {
    let mut steps = Steps::start();
    if let Some(running) = host.running(request.machine) {
        if let Some(hook) = &request.terminate {
            // The end comes whatever the application says.
            if let Err(error) = HookName::Terminate.call(&host.agent(&running.cell), hook).await {
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
    let directory = host.layout.machine(request.machine).0;
    let kept = request.keep_disk.then(|| host.layout.kept(request.machine).0);
    let removed = move || match kept {
        Some(kept) if directory.exists() => keep(&directory, &kept),
        Some(_) | None => remove_directory(&directory),
    };
    blocking(removed, "delete a machine's files").await?;
    steps.mark("files");
    failpoints::STOP_FILES.pass().await?;
    Ok(steps.finish())
}

/// What is left of a machine that died, for who wants to know why.
fn keep(directory: &Path, kept: &Path) -> std::io::Result<()> {
    remove_directory(kept)?;
    std::fs::rename(directory, kept)
}
