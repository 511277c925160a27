//! What launching and resuming have in common: a process restored in a fresh cell, and an agent that makes the copy fit to run.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use emberbox_agent_protocol::{Hook, Identity, Reply, Request, Restored};
use uuid::Uuid;

use super::record::{MachineRecord, RunningProcess};
use crate::agent::AgentError;
use crate::engine::{DiskFormat, EngineError, Restore, VmDisk, VmSpec};
use crate::layout::{ImageFiles, MachineFiles, SnapshotFiles};
use crate::local::{LocalHost, Running};
use crate::steps::Steps;
use crate::{HostError, ImageKey, MachineId, MachineShape, disk, failpoints};

/// Restoring takes a tenth of a second; a host out of breath gets this long.
const RESTORED_WITHIN: Duration = Duration::from_secs(30);
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
    /// The machine's own pages, when it was suspended; a machine without them is being launched.
    pub layer: Option<&'a SnapshotFiles>,
}

/// The directory of a new machine, with its private disk over the image's.
pub(super) fn create_files(files: &MachineFiles, image: &ImageFiles) -> io::Result<()> {
    std::fs::create_dir(&files.0)?;
    std::fs::copy(image.overlay_template(), files.disk()).map(|_| ())
}

/// Who a new machine is.
pub(super) fn new_identity(machine: MachineId, name: &str) -> Identity {
    Identity { microvm_id: name.to_owned(), host_name: machine.to_string(), boot_id: Uuid::new_v4().to_string() }
}

/// Starts the process. Its guest's application is frozen until [`thaw`].
pub(super) async fn start(host: &Arc<LocalHost>, copy: Copy<'_>, steps: &mut Steps) -> Result<Arc<Running>, HostError> {
    let mut cell = host.cells.take().await?;
    steps.mark("cell");
    failpoints::RESTORE_CELL.pass().await?;
    let opened = open(host, &copy).map_err(HostError::internal("open the snapshot"))?;
    let tap = cell.tap.take().ok_or_else(|| HostError::internal("use a cell")(io::Error::other("its tap is in use")))?;
    let spec = VmSpec {
        shape: copy.shape,
        uid: host.cells.user_of(&cell),
        namespace: cell.namespace.clone(),
        tap,
        disks: vec![opened.0],
        directory: copy.files.0.clone(),
    };
    let vm = host.engine.restore(spec, opened.1).await?;
    let process = RunningProcess { identity: vm.process(), cell: cell.number };
    let running = Arc::new(Running { image: copy.image.clone(), vm, cell });
    let record = MachineRecord { image: copy.image.clone(), launched: copy.layer.is_some(), process: Some(process) };
    if let Err(error) = load(&running, &record, copy.files, steps).await {
        running.end().await;
        return Err(error);
    }
    Ok(running)
}

/// Puts the started process on record, then lets it touch the machine's disk.
async fn load(running: &Running, record: &MachineRecord, files: &MachineFiles, steps: &mut Steps) -> Result<(), HostError> {
    failpoints::RESTORE_START.pass().await?;
    record.write(files).map_err(HostError::internal("record the machine's process"))?;
    steps.mark("process");
    failpoints::RESTORE_PROCESS.pass().await?;
    running.vm.run_restored().await?;
    steps.mark("restore");
    Ok(failpoints::RESTORE_STATE.pass().await?)
}

fn open(host: &LocalHost, copy: &Copy<'_>) -> io::Result<(VmDisk, Restore)> {
    let image: ImageFiles = host.layout.image(copy.image);
    let layers = [(&*copy.files.disk(), DiskFormat::Qcow2), (&*image.disk(), DiskFormat::Qcow2), (&*image.root_disk(), DiskFormat::Raw)];
    let root = VmDisk { serial: "root", read_only: false, layers: disk::open_layers(&layers, false)? };
    let layer = match copy.layer {
        Some(files) => Some((File::open(files.memory())?, File::open(files.memory_runs())?)),
        None => None,
    };
    Ok((root, Restore { base: File::open(copy.base.memory())?, layer, state: File::open(copy.state.state())? }))
}

/// Tells the guest that it is a copy: clock, entropy, identity, then its application runs again and the hook is called.
pub(super) async fn thaw(
    host: &LocalHost,
    running: &Running,
    identity: Option<Identity>,
    hook: Option<Hook>,
    steps: &mut Steps,
) -> Result<Option<emberbox_agent_protocol::HookOutcome>, HostError> {
    let deadline = RESTORED_WITHIN + Duration::from_millis(hook.as_ref().map_or(0, |hook| hook.timeout_ms));
    let wants_hook = hook.is_some();
    let entropy = base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; ENTROPY]>());
    let restored = Restored { wall_clock_ns: wall_clock_ns(), entropy, identity, hook };
    let agent = host.agent(&running.cell);
    let reply = tokio::select! {
        reply = agent.ask(Request::Restored(restored), deadline) => reply?,
        output = running.vm.ended() => return Err(EngineError::Ended { output }.into()),
    };
    steps.mark("guest");
    match (reply, wants_hook) {
        (Reply::Done, false) => Ok(None),
        (Reply::Hook(outcome), true) => Ok(Some(outcome)),
        _ => Err(AgentError::Unexpected.into()),
    }
}

fn wall_clock_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
