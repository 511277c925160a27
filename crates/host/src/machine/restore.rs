//! What launching and resuming have in common: a process restored in a fresh cell, and an agent that makes the copy fit to run.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use emberbox_agent_protocol::{Hook, HookOutcome, Identity, Reply, Request, Restored};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::blocking;
use super::record::{MachineRecord, RunningProcess};
use crate::agent::AgentError;
use crate::engine::{DiskFormat, Restore, VmDisk, VmSpec, WorkingSet};
use crate::layout::{ImageFiles, MachineFiles, SnapshotFiles};
use crate::local::{LocalHost, Running};
use crate::snapshot::Manifest;
use crate::snapshot::manifest::SnapshotFile;
use crate::steps::Steps;
use crate::{HostError, ImageKey, MachineId, MachineShape, disk, failpoints, pressure};

/// Restoring takes a tenth of a second; a host out of breath gets this long.
const RESTORED_WITHIN: Duration = Duration::from_secs(30);
/// A guest's clock is right within 50 ms: what is left is for the host's own clock being read.
const CLOCK_TOLERANCE: Duration = Duration::from_millis(45);
/// On a host so busy that none of these is quick enough, a guest cannot read its clock that exactly either.
const CLOCK_ATTEMPTS: u32 = 10;
/// Bytes of fresh randomness for each copy: what the kernel's pool holds.
const ENTROPY: usize = 64;

/// A copy about to be started.
pub(super) struct Copy<'a> {
    pub image: &'a ImageKey,
    pub files: &'a MachineFiles,
    pub shape: MachineShape,
    /// Guest RAM of the image, and the device state to start from.
    pub base: &'a SnapshotFiles,
    pub state: &'a SnapshotFiles,
    pub working_set: Pages,
    /// The machine's own pages, when it was suspended; a machine without them is being launched.
    pub layer: Option<&'a SnapshotFiles>,
    /// Ends when the machine's own files have been proved: its state is not loaded before.
    pub proof: Option<JoinHandle<Result<(), HostError>>>,
}

/// What a copy is to do about its image's working set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pages {
    /// There is none.
    Unknown,
    Recorded,
    /// It lies beside the image's memory, proved.
    Known,
}

impl Pages {
    pub(super) fn of(host: &LocalHost, image: &Manifest) -> Self {
        let known = host.working_sets && image.files.contains_key(&SnapshotFile::WorkingSet);
        if known { Self::Known } else { Self::Unknown }
    }
}

/// The directory of a new machine, with its private disk over the image's. From here on the image is in use.
pub(super) fn create_files(files: &MachineFiles, key: &ImageKey, shape: MachineShape, image: &ImageFiles) -> io::Result<()> {
    std::fs::create_dir(&files.0)?;
    MachineRecord { image: key.clone(), shape: Some(shape), launched: false, process: None }.write(files)?;
    std::fs::copy(image.overlay_template(), files.disk()).map(|_| ())
}

/// The machine's application runs, or its snapshot is whole: a daemon that finds the machine has nothing to thaw.
pub(super) fn note_running(files: &MachineFiles) -> io::Result<()> {
    match std::fs::remove_file(files.still()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Who a new machine is.
pub(super) fn new_identity(machine: MachineId, name: &str) -> Identity {
    Identity { microvm_id: name.to_owned(), host_name: machine.to_string(), boot_id: Uuid::new_v4().to_string() }
}

/// Starts the process. Its guest's application is frozen until [`thaw`].
pub(super) async fn start(host: &Arc<LocalHost>, mut copy: Copy<'_>, steps: &mut Steps) -> Result<Arc<Running>, HostError> {
    pressure::descriptors_for_a_machine()?;
    let mut cell = host.cells.take().await?;
    steps.mark("cell");
    failpoints::RESTORE_CELL.pass().await?;
    let opened = open(host, &copy).await?;
    let tap = cell.tap.take().ok_or_else(|| HostError::internal("use a cell")(io::Error::other("its tap is in use")))?;
    let uid = host.cells.user_of(&cell);
    let spec = VmSpec {
        shape: copy.shape,
        uid,
        namespace: cell.namespace.clone(),
        tap,
        disks: vec![opened.0],
        directory: copy.files.0.clone(),
        group: host.group(uid, copy.shape).map_err(HostError::internal("limit a machine"))?,
    };
    let vm = host.engine.restore(spec, opened.1).await?;
    let process = RunningProcess { identity: vm.process(), cell: cell.number };
    let running = Arc::new(Running::new(copy.image.clone(), copy.shape, vm, cell));
    let launched = copy.layer.is_some();
    let record = MachineRecord { image: copy.image.clone(), shape: Some(copy.shape), launched, process: Some(process) };
    if let Err(error) = super::caught(load(&running, &record, &mut copy, steps)).await {
        running.end().await;
        return Err(error);
    }
    Ok(running)
}

/// Puts the started process on record, waits for the proof of the machine's files, then lets the process touch its disk.
async fn load(running: &Running, record: &MachineRecord, copy: &mut Copy<'_>, steps: &mut Steps) -> Result<(), HostError> {
    failpoints::RESTORE_START.pass().await?;
    let (record, files) = (record.clone(), copy.files.clone());
    blocking(move || record.write(&files), "record the machine's process").await?;
    steps.mark("process");
    failpoints::RESTORE_PROCESS.pass().await?;
    if let Some(proof) = copy.proof.take() {
        proof.await.map_err(HostError::internal("verify the snapshot"))??;
        steps.mark("verify");
    }
    let parts = running.vm.run_restored().await?;
    steps.mark_around(parts, "restore");
    Ok(failpoints::RESTORE_STATE.pass().await?)
}

/// From here on the machine is noted as standing still.
async fn open(host: &LocalHost, copy: &Copy<'_>) -> Result<(VmDisk, Restore), HostError> {
    let (image, files) = (host.layout.image(copy.image), copy.files.clone());
    let (base, state, layer, working_set) = (copy.base.clone(), copy.state.clone(), copy.layer.cloned(), copy.working_set);
    let work = move || {
        File::create(files.still())?;
        let layers = [(&*files.disk(), DiskFormat::Qcow2), (&*image.disk(), DiskFormat::Qcow2), (&*image.root_disk(), DiskFormat::Raw)];
        let root = VmDisk { serial: "root", read_only: false, layers: disk::open_layers(&layers, false)? };
        let layer = match layer {
            Some(files) => Some((File::open(files.memory())?, File::open(files.memory_runs())?)),
            None => None,
        };
        let working_set = match working_set {
            Pages::Unknown => WorkingSet::Unknown,
            Pages::Recorded => WorkingSet::Recorded,
            Pages::Known => WorkingSet::Known(File::open(base.working_set())?),
        };
        Ok((root, Restore { base: File::open(base.memory())?, layer, state: File::open(state.state())?, working_set }))
    };
    blocking(work, "open the snapshot").await
}

/// Tells the guest that it is a copy: clock, entropy, identity, then its application runs again and the hook is called.
pub(super) async fn thaw(
    host: &LocalHost,
    running: &Running,
    identity: Option<Identity>,
    hook: Option<Hook>,
    steps: &mut Steps,
) -> Result<Option<HookOutcome>, HostError> {
    let wants_hook = hook.is_some();
    let (outcome, late) = tell_restored(host, running, identity, hook).await?;
    steps.mark("guest");
    if outcome.is_some() != wants_hook {
        return Err(AgentError::Unexpected.into());
    }
    if late > CLOCK_TOLERANCE {
        set_clock(host, running).await?;
        steps.mark("clock");
    }
    Ok(outcome)
}

/// The hook's outcome, and the most that the guest's clock can be late: what the exchange took without what the guest accounts for.
async fn tell_restored(
    host: &LocalHost,
    running: &Running,
    identity: Option<Identity>,
    hook: Option<Hook>,
) -> Result<(Option<HookOutcome>, Duration), HostError> {
    let deadline = RESTORED_WITHIN + Duration::from_millis(hook.as_ref().map_or(0, |hook| hook.timeout_ms));
    let entropy = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; ENTROPY]>());
    let mut told = Instant::now();
    let restored = || {
        told = Instant::now();
        Request::Restored(Restored { wall_clock_ns: wall_clock_ns(), entropy, identity, hook })
    };
    match running.agent(host).ask_late(restored, deadline).await? {
        Reply::Restored { outcome, handled_us } => Ok((outcome, told.elapsed().saturating_sub(Duration::from_micros(handled_us)))),
        _ => Err(AgentError::Unexpected.into()),
    }
}

/// A host out of breath made the exchange long: how late the clock is cannot be known, so it is set until an exchange is short enough to know that it is right. Nobody is connected yet, and what else the agent does when it is told changes nothing the second time.
async fn set_clock(host: &LocalHost, running: &Running) -> Result<(), HostError> {
    let mut best = Duration::MAX;
    for _ in 0..CLOCK_ATTEMPTS {
        let (_, late) = tell_restored(host, running, None, None).await?;
        best = best.min(late);
        if late <= CLOCK_TOLERANCE {
            return Ok(());
        }
    }
    tracing::warn!(late_ms = best.as_millis(), "the host is too busy to set a guest's clock as exactly as it should be");
    Ok(())
}

fn wall_clock_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
