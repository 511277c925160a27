//! Suspend: freeze, write what differs from the image, and only when that is safe end the process.
//!
//! Until the snapshot has its final name the machine is whole: any failure thaws it and it goes on. Space is looked for before anybody is told of the
//! suspension.

use std::sync::Arc;
use std::time::Duration;

use emberbox_agent_protocol::Request;

use super::hooks::HookName;
use super::record::MachineRecord;
use super::{blocking, caught, restore};
use crate::agent::AgentLink;
use crate::layout::{MachineFiles, SnapshotFiles, occupied_bytes, sync_directory};
use crate::local::{LocalHost, Running, remove_directory};
use crate::memory::{PrivateMemory, SavedMemory};
use crate::snapshot::manifest::{SnapshotFile, Sums};
use crate::snapshot::packed::Compression;
use crate::snapshot::{Manifest, sum::Sum};
use crate::steps::Steps;
use crate::{HostError, MachineId, SuspendMachine, Suspended, failpoints};

/// The agent waits 5 s for the application's cgroup; syncing its disk may take longer.
pub(super) const FROZEN_WITHIN: Duration = Duration::from_secs(30);
/// A slow disk writes a large machine in this; on one that hangs the machine goes on. Less than what control waits for any call, for whoever is given up by that
/// cannot undo anything.
const SAVED_WITHIN: Duration = Duration::from_secs(10 * 60);
/// Device state, manifest, and what the guest has not yet written to its disk and pages it changes before it stands still.
const BESIDES_MEMORY: u64 = 64 << 20;

pub(crate) async fn suspend(host: &Arc<LocalHost>, request: SuspendMachine) -> Result<Suspended, HostError> {
    let running = host.running(request.machine).ok_or(HostError::NoSuchMachine(request.machine))?;
    let files = host.layout.machine(request.machine);
    let agent = host.agent(&running.cell);
    let mut steps = Steps::start();
    let memory = private_memory(host, &running, &files);
    let measured = memory.clone();
    let bytes = blocking(move || measured.bytes(), "measure the machine's memory").await?;
    let space = host.space.promise(bytes + BESIDES_MEMORY)?;
    steps.mark("space");
    if let Some(hook) = &request.suspend {
        if let Err(error) = HookName::Suspend.call(&agent, hook).await {
            // An application that refuses runs on; an agent that does not answer may be that of a guest left paused.
            if !matches!(error, HostError::Hook { .. }) {
                go_on(host, &running, &files, Stopped::AtMostFrozen).await;
            }
            return Err(error);
        }
        steps.mark("suspend_hook");
        failpoints::SUSPEND_HOOK.pass().await?;
    }
    let mut stopped = Stopped::AtMostFrozen;
    let saving = caught(save(host, &running, &files, memory, &agent, &mut stopped, &mut steps));
    let saved = tokio::time::timeout(SAVED_WITHIN, saving).await;
    let saved = saved.unwrap_or_else(|elapsed| Err(HostError::internal("write the snapshot in time")(elapsed)));
    drop(space);
    let memory_bytes = match saved {
        Ok(bytes) => bytes,
        Err(error) => {
            go_on(host, &running, &files, stopped).await;
            return Err(host.space.explain(error));
        }
    };
    // The snapshot has its name: from here on the machine is suspended whatever fails.
    let machine = request.machine;
    if let Err(error) = caught(end(host, &running, &files, machine, &mut steps)).await {
        tracing::error!(%machine, error = &error as &dyn std::error::Error, "a suspension was not brought to its end in order");
        host.remove(machine);
        running.end().await;
        tidy(&running, &files, machine).await;
    }
    Ok(Suspended { memory_bytes, disk_bytes: occupied_bytes(&files.disk()).unwrap_or_default(), steps: steps.finish() })
}

/// Ends the process of a machine whose snapshot is whole.
async fn end(host: &LocalHost, running: &Running, files: &MachineFiles, machine: MachineId, steps: &mut Steps) -> Result<(), HostError> {
    failpoints::SUSPEND_COMMIT.reach().await;
    host.remove(machine);
    running.end().await;
    steps.mark("process_end");
    failpoints::SUSPEND_PROCESS_END.reach().await;
    tidy(running, files, machine).await;
    steps.mark("tidy");
    failpoints::SUSPEND_TIDY.reach().await;
    Ok(())
}

fn private_memory(host: &LocalHost, running: &Running, files: &MachineFiles) -> PrivateMemory {
    PrivateMemory {
        pid: running.vm.process().pid,
        base: host.layout.image(&running.image).snapshot().memory(),
        length: u64::from(running.shape.memory_mib) << 20,
        earlier: files.resumed(),
    }
}

/// How far a suspension had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopped {
    AtMostFrozen,
    /// The guest's clocks have stood still.
    Paused,
}

/// From the freeze to a snapshot under its final name.
async fn save(
    host: &LocalHost,
    running: &Running,
    files: &MachineFiles,
    memory: PrivateMemory,
    agent: &AgentLink,
    stopped: &mut Stopped,
    steps: &mut Steps,
) -> Result<u64, HostError> {
    let failed = HostError::internal;
    std::fs::File::create(files.still()).map_err(failed("note that the machine stands still"))?;
    agent.command(Request::Freeze, FROZEN_WITHIN).await?;
    steps.mark("freeze");
    failpoints::SUSPEND_FREEZE.pass().await?;
    *stopped = Stopped::Paused;
    running.vm.pause().await?;
    steps.mark("pause");
    failpoints::SUSPEND_PAUSE.pass().await?;
    let new = files.snapshot_in_progress();
    remove_directory(&new.0).and_then(|()| std::fs::create_dir(&new.0)).map_err(failed("make the snapshot's directory"))?;
    failpoints::SUSPEND_FILES.pass().await?;
    let state = std::fs::File::create_new(new.state()).map_err(failed("make the snapshot's state file"))?;
    let synced = state.try_clone().map_err(failed("make the snapshot's state file"))?;
    let to = new.clone();
    let compression = host.compression;
    let save_memory = blocking(move || memory.save(&to, compression), "save the machine's memory");
    let (state, memory) = tokio::join!(running.vm.save_state(state), save_memory);
    state?;
    let memory = memory?;
    steps.mark("memory_and_state");
    failpoints::SUSPEND_MEMORY_AND_STATE.pass().await?;
    let (memory_bytes, finished, owner) = (memory.bytes, new.clone(), files.clone());
    let (engine, shape) = (host.engine.identity().clone(), running.shape);
    let sync = move || {
        synced.sync_all()?;
        std::fs::File::open(owner.disk())?.sync_all()?;
        let packed = compression == Compression::Zstd;
        Manifest { packed, ..Manifest::new(engine, shape, memory_bytes, sums(memory, &finished)?) }.write(&finished)
    };
    blocking(sync, "sync the snapshot").await?;
    failpoints::SUSPEND_SYNC.pass().await?;
    commit(files, &new).map_err(failed("give the snapshot its name"))?;
    steps.mark("sync");
    Ok(memory_bytes)
}

/// The device state has been written by now, so nobody writes to the disk any more.
fn sums(memory: SavedMemory, snapshot: &SnapshotFiles) -> std::io::Result<Sums> {
    Ok(Sums::from([
        (SnapshotFile::State, Sum::of(&snapshot.state())?),
        (SnapshotFile::Memory, memory.memory),
        (SnapshotFile::MemoryRuns, memory.runs),
        (SnapshotFile::Disk, Sum::standing(&SnapshotFile::Disk.path(snapshot))?),
    ]))
}

/// The snapshot exists from here on.
fn commit(files: &MachineFiles, new: &SnapshotFiles) -> std::io::Result<()> {
    std::fs::rename(&new.0, &files.snapshot().0)?;
    sync_directory(&files.0)
}

async fn tidy(running: &Running, files: &MachineFiles, machine: MachineId) {
    let files = files.clone();
    let record = MachineRecord { image: running.image.clone(), shape: Some(running.shape), launched: true, process: None };
    let work = move || {
        record.write(&files)?;
        remove_directory(&files.resumed().0)?;
        restore::note_running(&files)
    };
    if let Err(error) = blocking(work, "tidy up after a suspension").await {
        tracing::warn!(error = &error as &dyn std::error::Error, %machine, "a suspension was not tidied up after");
    }
}

/// A suspension that did not come about: the machine runs on as if nobody had asked.
async fn go_on(host: &LocalHost, running: &Running, files: &MachineFiles, stopped: Stopped) {
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
    let thawed = match stopped {
        Stopped::AtMostFrozen => host.agent(&running.cell).command(Request::Thaw, FROZEN_WITHIN).await.map_err(HostError::from),
        // Its clock is late by as long as it was paused.
        Stopped::Paused => restore::thaw(host, running, None, None, &mut Steps::start()).await.map(|_| ()),
    };
    match thawed {
        Ok(()) => restore::note_running(files)
            .unwrap_or_else(|error| tracing::warn!(%error, "a machine that runs on is still noted as standing still")),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a machine could not be thawed after a failed suspension");
        }
    }
}
