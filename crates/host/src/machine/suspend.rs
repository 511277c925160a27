//! Suspend: freeze, write what differs from the image, and only when that is safe end the process.
//!
//! Until the snapshot has its final name the machine is whole: any failure thaws it and it goes on.

use std::sync::Arc;
use std::time::Duration;

use emberbox_agent_protocol::Request;

use super::blocking;
use super::hooks::HookName;
use super::record::MachineRecord;
use crate::agent::AgentLink;
use crate::layout::{MachineFiles, SnapshotFiles, occupied_bytes, sync_directory};
use crate::local::{LocalHost, Running, remove_directory};
use crate::manifest::Manifest;
use crate::steps::Steps;
use crate::{HostError, MachineShape, SuspendMachine, Suspended, failpoints, memory};

/// The agent waits 5 s for the application's cgroup; syncing its disk may take longer.
pub(super) const FROZEN_WITHIN: Duration = Duration::from_secs(30);

pub(crate) async fn suspend(host: &Arc<LocalHost>, request: SuspendMachine) -> Result<Suspended, HostError> {
    let running = host.running(request.machine).ok_or(HostError::NoSuchMachine(request.machine))?;
    let files = host.layout.machine(request.machine);
    let agent = host.agent(&running.cell);
    let mut steps = Steps::start();
    if let Some(hook) = &request.suspend {
        if let Err(error) = HookName::Suspend.call(&agent, hook).await {
            // An application that refuses runs on; an agent that does not answer may be that of a guest left paused.
            if !matches!(error, HostError::Hook { .. }) {
                go_on(&running, &agent, &files).await;
            }
            return Err(error);
        }
        steps.mark("suspend_hook");
        failpoints::SUSPEND_HOOK.pass().await?;
    }
    let shape = Manifest::load(&host.layout.image(&running.image).snapshot(), host.engine.identity())?.shape;
    let memory_bytes = match save(host, &running, &files, shape, &agent, &mut steps).await {
        Ok(bytes) => bytes,
        Err(error) => {
            go_on(&running, &agent, &files).await;
            return Err(error);
        }
    };
    failpoints::SUSPEND_COMMIT.reach().await;
    host.remove(request.machine);
    // The snapshot has its name: from here on the machine is suspended whatever fails.
    running.end().await;
    steps.mark("process_end");
    failpoints::SUSPEND_PROCESS_END.reach().await;
    let disk_bytes = occupied_bytes(&files.disk()).unwrap_or_default();
    let record = MachineRecord { image: running.image.clone(), launched: true, process: None };
    let tidied = blocking(move || record.write(&files).and_then(|()| remove_directory(&files.resumed().0)), "tidy up after a suspension");
    if let Err(error) = tidied.await {
        tracing::warn!(error = &error as &dyn std::error::Error, machine = %request.machine, "a suspension was not tidied up after");
    }
    steps.mark("tidy");
    failpoints::SUSPEND_TIDY.reach().await;
    Ok(Suspended { memory_bytes, disk_bytes, steps: steps.finish() })
}

/// From the freeze to a snapshot under its final name.
async fn save(
    host: &LocalHost,
    running: &Running,
    files: &MachineFiles,
    shape: MachineShape,
    agent: &AgentLink,
    steps: &mut Steps,
) -> Result<u64, HostError> {
    agent.command(Request::Freeze, FROZEN_WITHIN).await?;
    steps.mark("freeze");
    failpoints::SUSPEND_FREEZE.pass().await?;
    running.vm.pause().await?;
    steps.mark("pause");
    failpoints::SUSPEND_PAUSE.pass().await?;
    let new = files.snapshot_in_progress();
    let failed = HostError::internal;
    remove_directory(&new.0).and_then(|()| std::fs::create_dir(&new.0)).map_err(failed("make the snapshot's directory"))?;
    failpoints::SUSPEND_FILES.pass().await?;
    let state = std::fs::File::create_new(new.state()).map_err(failed("make the snapshot's state file"))?;
    let synced = state.try_clone().map_err(failed("make the snapshot's state file"))?;
    let (saved, bytes) = tokio::join!(running.vm.save_state(state), save_memory(host, running, files, shape, &new));
    saved?;
    let memory_bytes = bytes?;
    steps.mark("memory_and_state");
    failpoints::SUSPEND_MEMORY_AND_STATE.pass().await?;
    let disk = files.disk();
    let finished = new.clone();
    let engine = host.engine.identity().clone();
    let sync = move || {
        synced.sync_all()?;
        std::fs::File::open(disk)?.sync_all()?;
        Manifest::of(&finished, engine, shape, memory_bytes)?.write(&finished)
    };
    blocking(sync, "sync the snapshot").await?;
    failpoints::SUSPEND_SYNC.pass().await?;
    commit(files, &new).map_err(failed("give the snapshot its name"))?;
    steps.mark("sync");
    Ok(memory_bytes)
}

async fn save_memory(
    host: &LocalHost,
    running: &Running,
    files: &MachineFiles,
    shape: MachineShape,
    to: &SnapshotFiles,
) -> Result<u64, HostError> {
    let base = host.layout.image(&running.image).snapshot().memory();
    let (pid, length) = (running.vm.process().pid, u64::from(shape.memory_mib) << 20);
    let (earlier, to) = (files.resumed(), to.clone());
    blocking(move || memory::save_private_memory(pid, &base, length, Some(&earlier), &to), "save the machine's memory").await
}

/// The snapshot exists from here on.
fn commit(files: &MachineFiles, new: &SnapshotFiles) -> std::io::Result<()> {
    std::fs::rename(&new.0, &files.snapshot().0)?;
    sync_directory(&files.0)
}

/// A suspension that did not come about: the machine runs on as if nobody had asked.
async fn go_on(running: &Running, agent: &AgentLink, files: &MachineFiles) {
    // First, so that a crash never finds a snapshot older than the disk it goes with.
    for directory in [files.snapshot_in_progress().0, files.snapshot().0] {
        if let Err(error) = remove_directory(&directory) {
            tracing::warn!(%error, "a half-made snapshot could not be removed");
        }
    }
    let resumed = running.vm.resume().await;
    if let Err(error) = &resumed {
        tracing::warn!(error = error as &dyn std::error::Error, "a machine could not be resumed after a failed suspension");
    }
    if let Err(error) = agent.command(Request::Thaw, FROZEN_WITHIN).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "a machine could not be thawed after a failed suspension");
    }
}
