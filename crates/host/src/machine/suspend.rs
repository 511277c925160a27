//! Suspend: freeze, write what differs from the image, and only when that is safe end the process.
//!
//! Until the snapshot has its final name the machine is whole: any failure thaws it and it goes on. Space is looked for before anybody is told of the
//! suspension.
//!
//! A disk may take minutes for any file. So all work on files is done on threads of its own, where it can be given up: the machine goes on, and what waits for the
//! disk ends behind it. It works under the same names as the next suspension would, which is therefore refused until then.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberbox_agent_protocol::Request;
use tokio::sync::OwnedMutexGuard;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

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
/// Device state, manifest, and what the guest has not yet written to its disk and pages it changes before it stands still.
const BESIDES_MEMORY: u64 = 64 << 20;
/// What a suspension that was given up left to the disk is done within this, or the next is refused.
const ALONE_WITHIN: Duration = Duration::from_secs(1);
/// Removing a half-made snapshot is waited for as long as a disk that works takes; the machine goes on by then.
const TIDIED_WITHIN: Duration = Duration::from_secs(5);

/// A suspension under way.
struct Suspension<'a> {
    host: &'a LocalHost,
    running: &'a Running,
    files: &'a MachineFiles,
    agent: AgentLink,
    turns: Arc<Turns>,
    /// Nobody waits for the snapshot any more.
    given_up: CancellationToken,
}

/// Work on the files of a suspension: one after the other, and no other suspension's before the last has ended.
struct Turns {
    turn: Mutex<()>,
    _alone: OwnedMutexGuard<()>,
}

pub(crate) async fn suspend(host: &Arc<LocalHost>, request: SuspendMachine) -> Result<Suspended, HostError> {
    let running = host.running(request.machine).ok_or(HostError::NoSuchMachine(request.machine))?;
    let files = host.layout.machine(request.machine);
    let alone = timeout(ALONE_WITHIN, running.suspending.clone().lock_owned()).await;
    let alone = alone.map_err(HostError::internal("begin while the suspension before it still waits for the disk"))?;
    let given_up = CancellationToken::new();
    let _given_up = given_up.clone().drop_guard();
    let agent = running.agent(host);
    let turns = Arc::new(Turns { turn: Mutex::new(()), _alone: alone });
    let suspension = Suspension { host, running: &running, files: &files, agent, turns, given_up };
    let mut steps = Steps::start();
    let memory = private_memory(host, &running, &files);
    let measured = memory.clone();
    let bytes = blocking(move || measured.bytes(), "measure the machine's memory").await?;
    let space = host.space.promise(bytes + BESIDES_MEMORY)?;
    steps.mark("space");
    if let Some(hook) = &request.suspend {
        if let Err(error) = HookName::Suspend.call(&suspension.agent, hook).await {
            // An application that refuses runs on; an agent that does not answer may be that of a guest left paused.
            if !matches!(error, HostError::Hook { .. }) {
                suspension.go_on(Stopped::AtMostFrozen).await;
            }
            return Err(error);
        }
        steps.mark("suspend_hook");
        failpoints::SUSPEND_HOOK.pass().await?;
    }
    let saved = suspension.save(memory, &mut steps).await;
    drop(space);
    let memory_bytes = saved?;
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

impl Suspension<'_> {
    /// A snapshot under its final name, or a machine that goes on.
    async fn save(&self, memory: PrivateMemory, steps: &mut Steps) -> Result<u64, HostError> {
        let mut stopped = Stopped::AtMostFrozen;
        let written = timeout(self.host.suspend_within, caught(self.write(memory, &mut stopped, steps))).await;
        let saved = match written {
            // Whoever has begun to give it its name waits for it: nobody could tell whether it has one.
            Ok(Ok(bytes)) => self.commit(steps).await.map(|()| bytes),
            Ok(Err(error)) => Err(error),
            Err(elapsed) => Err(HostError::internal("write the snapshot in time")(elapsed)),
        };
        if saved.is_err() {
            self.given_up.cancel();
            self.go_on(stopped).await;
        }
        saved.map_err(|error| self.host.space.explain(error))
    }

    /// From the freeze to a snapshot that is whole and synced.
    async fn write(&self, memory: PrivateMemory, stopped: &mut Stopped, steps: &mut Steps) -> Result<u64, HostError> {
        let still = self.files.still();
        self.on_disk("note that the machine stands still", move || File::create(still).map(drop)).await?;
        self.agent.command(Request::Freeze, FROZEN_WITHIN).await?;
        steps.mark("freeze");
        failpoints::SUSPEND_FREEZE.pass().await?;
        *stopped = Stopped::Paused;
        self.running.vm.pause().await?;
        steps.mark("pause");
        failpoints::SUSPEND_PAUSE.pass().await?;
        let new = self.files.snapshot_in_progress();
        let directory = new.0.clone();
        let make = move || remove_directory(&directory).and_then(|()| std::fs::create_dir(&directory));
        self.on_disk("make the snapshot's directory", make).await?;
        failpoints::SUSPEND_FILES.pass().await?;
        let state = new.state();
        let make = move || File::create_new(state).and_then(|file| Ok((file.try_clone()?, file)));
        let (synced, state) = self.on_disk("make the snapshot's state file", make).await?;
        let (to, compression, given_up) = (new.clone(), self.host.compression, self.given_up.clone());
        let save_memory = self.on_disk("save the machine's memory", move || memory.save(&to, compression, &given_up));
        let (state, memory) = tokio::join!(self.running.vm.save_state(state), save_memory);
        state?;
        let memory = memory?;
        steps.mark("memory_and_state");
        failpoints::SUSPEND_MEMORY_AND_STATE.pass().await?;
        let (memory_bytes, owner, given_up) = (memory.bytes, self.files.clone(), self.given_up.clone());
        let (engine, shape) = (self.host.engine.identity().clone(), self.running.shape);
        let sync = move || {
            synced.sync_all()?;
            File::open(owner.disk())?.sync_all()?;
            let packed = compression == Compression::Zstd;
            let manifest = Manifest { packed, ..Manifest::new(engine, shape, memory_bytes, sums(memory, &new)?) };
            match given_up.is_cancelled() {
                true => Err(io::ErrorKind::Interrupted.into()),
                false => manifest.write(&new),
            }
        };
        self.on_disk("sync the snapshot", sync).await?;
        failpoints::SUSPEND_SYNC.pass().await?;
        Ok(memory_bytes)
    }

    /// The snapshot exists from here on.
    async fn commit(&self, steps: &mut Steps) -> Result<(), HostError> {
        let files = self.files.clone();
        let named = move || {
            std::fs::rename(files.snapshot_in_progress().0, files.snapshot().0)?;
            sync_directory(&files.0)
        };
        self.on_disk("give the snapshot its name", named).await?;
        steps.mark("sync");
        Ok(())
    }

    /// A suspension that did not come about: the machine runs on as if nobody had asked.
    async fn go_on(&self, stopped: Stopped) {
        // First, so that a crash never finds a snapshot older than the disk it goes with.
        let named = self.files.snapshot().0;
        if named.exists()
            && let Err(error) = self.in_turn("remove a snapshot", move || remove_directory(&named)).await
        {
            tracing::error!(error = &error as &dyn std::error::Error, "the snapshot of a machine that goes on could not be removed");
        }
        if let Err(error) = self.running.vm.resume().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "a machine could not be resumed after a failed suspension");
        }
        let thawed = match stopped {
            Stopped::AtMostFrozen => self.agent.command(Request::Thaw, FROZEN_WITHIN).await.map_err(HostError::from),
            // Its clock is late by as long as it was paused.
            Stopped::Paused => restore::thaw(self.host, self.running, None, None, &mut Steps::start()).await.map(|_| ()),
        };
        if let Err(error) = &thawed {
            tracing::warn!(error = error as &dyn std::error::Error, "a machine could not be thawed after a failed suspension");
        }
        let (files, runs) = (self.files.clone(), thawed.is_ok());
        let tidy = move || {
            remove_directory(&files.snapshot_in_progress().0)?;
            if runs { restore::note_running(&files) } else { Ok(()) }
        };
        match timeout(TIDIED_WITHIN, self.in_turn("tidy up after a failed suspension", tidy)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "a half-made snapshot was left"),
            Err(_) => tracing::warn!("a half-made snapshot is removed as soon as the disk answers"),
        }
    }

    /// Work on files for the snapshot, which is not begun when nobody waits for that any more.
    async fn on_disk<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, HostError> {
        let given_up = self.given_up.clone();
        let work = move || if given_up.is_cancelled() { Err(io::ErrorKind::Interrupted.into()) } else { work() };
        self.in_turn(attempted, work).await
    }

    /// Who stops waiting leaves it to end by itself.
    async fn in_turn<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, HostError> {
        let turns = self.turns.clone();
        let work = move || {
            let _turn = turns.turn.lock().unwrap_or_else(PoisonError::into_inner);
            work()
        };
        blocking(work, attempted).await
    }
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
