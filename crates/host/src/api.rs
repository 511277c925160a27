//! The contract between `control` and a host.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use emberbox_agent_protocol::HookOutcome;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::words::last_words;

/// A machine of this host. `control` uses the uuid of the MicroVM's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MachineId(pub Uuid);

/// The files of one image version on this host: a directory name that `control` chose, `[a-z0-9-]{1,64}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageKey(String);

/// Memory of the machine that executes Dockerfiles. Its page cache takes what the build leaves of it.
pub const BUILDER_MEMORY_MIB: u32 = 4096;

/// What the guest sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineShape {
    pub vcpus: u32,
    pub memory_mib: u32,
    pub disk_gib: u32,
}

/// A lifecycle hook of the application; the host adds path and body of the wire form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCall {
    pub port: u16,
    pub timeout: Duration,
}

/// A registry that `FROM` may name, or a mirror of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// As in `FROM`: `docker.io`, `ghcr.io`, `registry.example:5000`.
    pub name: String,
    /// Asked instead of `name`, first one first.
    #[serde(default)]
    pub mirrors: Vec<String>,
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub username: Option<String>,
    #[serde(default)]
    pub password: Option<String>,
}

/// Execute a Dockerfile in a fresh builder machine and keep the result as the image's root disk.
#[derive(Debug, Clone)]
pub struct BuildRootDisk {
    pub image: ImageKey,
    /// The unpacked artifact, `Dockerfile` at its root. Read, never executed, by the host.
    pub context: PathBuf,
    /// The image's environment variables, visible to `RUN` (documented).
    pub environment: BTreeMap<String, String>,
    pub registries: Vec<Registry>,
    pub disk_gib: u32,
    pub timeout: Duration,
}

/// A root disk that a build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootDisk {
    pub config: ContainerConfig,
    /// Bytes of the file system that are in use.
    pub used_bytes: u64,
    pub steps: StepTimings,
}

/// The part of an OCI image configuration that says what to start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    /// `NAME=value`.
    pub env: Option<Vec<String>>,
    pub working_dir: String,
    pub user: String,
}

/// What runs in the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    pub config: ContainerConfig,
    /// Overlaid on the configuration's.
    pub environment: BTreeMap<String, String>,
    /// Lift the restriction of root's capabilities.
    pub all_capabilities: bool,
}

/// Start the application from an image's root disk, wait for `/ready`, freeze it and keep the snapshot.
#[derive(Debug, Clone)]
pub struct CaptureImage {
    pub image: ImageKey,
    pub shape: MachineShape,
    pub container: Container,
    /// Polled until 200. Without one the snapshot is taken as soon as the application has been started and has had a moment to fail.
    pub ready: Option<HookCall>,
    /// Run in a test machine from the snapshot before it counts.
    pub validate: Option<HookCall>,
}

/// A snapshot that launches can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedImage {
    /// Bytes that the memory file occupies.
    pub memory_bytes: u64,
    /// Bytes that the disks occupy.
    pub disk_bytes: u64,
    pub steps: StepTimings,
}

/// Restore a private copy of an image's snapshot in a cell of its own.
#[derive(Debug, Clone)]
pub struct LaunchMachine {
    pub machine: MachineId,
    pub image: ImageKey,
    /// What the guest calls itself: the MicroVM's id.
    pub name: String,
    /// `/run`, with the caller's payload.
    pub run: Option<(HookCall, Option<String>)>,
}

/// Freeze a machine to disk and end its process.
#[derive(Debug, Clone)]
pub struct SuspendMachine {
    pub machine: MachineId,
    pub suspend: Option<HookCall>,
}

/// What a suspended machine occupies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspended {
    pub memory_bytes: u64,
    pub disk_bytes: u64,
    pub steps: StepTimings,
}

/// Bring a suspended machine back.
#[derive(Debug, Clone)]
pub struct ResumeMachine {
    pub machine: MachineId,
    pub resume: Option<HookCall>,
}

/// End a machine, running or suspended, and delete its files.
#[derive(Debug, Clone)]
pub struct StopMachine {
    pub machine: MachineId,
    /// `/terminate`, when the machine is running; its failure changes nothing.
    pub terminate: Option<HookCall>,
    /// Keep its disk until [`Host::discard`]: for one whose process died.
    pub keep_disk: bool,
}

/// What a running machine has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of its process since that was started, as the host counts it.
    pub cpu: Duration,
}

/// Memory of this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostMemory {
    pub total_bytes: u64,
    /// What can be had without pushing anything out of memory.
    pub available_bytes: u64,
}

/// What this host's last start found and did about what the one before it had left.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecovery {
    pub machines_adopted: u32,
    /// Running ones whose agent did not answer.
    pub machines_silent: u32,
    /// Suspensions that had come as far as their snapshot; their processes were ended.
    pub suspensions_finished: u32,
    /// Resumes that had not come to run the application; their snapshots were put back.
    pub resumes_undone: u32,
    pub launches_undone: u32,
    pub processes_ended: u32,
    /// Directories of machines that had hardly begun.
    pub directories_removed: u32,
}

/// Named steps of an operation in the order they ended, with the time each took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTimings(pub Vec<(String, Duration)>);

/// A machine as the host finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub machine: MachineId,
    /// `None` when its record is damaged.
    pub image: Option<ImageKey>,
    pub status: MachineStatus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MachineStatus {
    /// Its process lives and its agent can be asked.
    Running,
    /// Its snapshot is whole.
    Suspended,
    /// Files without a process or a whole snapshot: nothing can bring it back.
    Lost,
}

/// A machine's process ended without being asked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineExit {
    pub machine: MachineId,
    pub end: ProcessEnd,
}

/// How a machine's process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessEnd {
    pub cause: EndCause,
    /// The last of what it and its guest's console printed. A guest may have written it.
    pub last_words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndCause {
    /// Nobody was told: it was started by a daemon that has ended since.
    Unknown,
    Code(i32),
    Signal(i32),
    /// The kernel ended it, for it was to have more memory than the host grants this machine.
    MemoryLimit,
    /// The kernel ended it, for the host had no memory left.
    HostMemory,
}

/// Output of a build or of an application while it is being captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// A named step begins.
    Step(String),
    Line(String),
}

/// Where a build's output goes.
pub type OutputSink = Arc<dyn Fn(Output) + Send + Sync>;

/// A byte stream to a port of the application.
pub trait GuestStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> GuestStream for T {}

/// Why an operation of the host did not happen. Whose fault it was is the variant.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The Dockerfile failed: `step` is the failing instruction where it is known, `tail` the last lines of output.
    #[error("the container build failed{}", step.as_ref().map(|s| format!(" at {s}")).unwrap_or_default())]
    BuildFailed { step: Option<String>, tail: Vec<String> },
    #[error("the container build did not end within {} s", limit.as_secs())]
    BuildTimedOut { limit: Duration },
    /// The application could not be executed at all.
    #[error("the application did not start: {reason}")]
    ApplicationNotStarted { reason: String },
    /// The application ended by itself before it was ready.
    #[error("the application exited with code {code}")]
    ApplicationExited { code: i32, tail: Vec<String> },
    /// A hook did not answer 200.
    #[error("lifecycle hook {hook}: {outcome:?}")]
    Hook { hook: &'static str, outcome: HookOutcome, timeout: Duration },
    #[error("no such machine on this host: {0}")]
    NoSuchMachine(MachineId),
    /// The machine has ended and nothing can bring it back.
    #[error("the machine is lost: {reason}")]
    MachineLost { machine: MachineId, reason: String },
    #[error("no such image on this host: {0}")]
    NoSuchImage(ImageKey),
    /// The snapshot was made by another engine, engine version, CPU profile or format.
    #[error("the snapshot does not fit this host: {0}")]
    SnapshotRefused(String),
    /// A file of a snapshot is not what was written: found before a guest ran on it. Names the file.
    #[error("the snapshot is damaged: {0}")]
    SnapshotDamaged(String),
    /// Copies of the image are on this host, running or suspended, and need its files.
    #[error("image {image} is needed by machine {machine}")]
    ImageInUse { image: ImageKey, machine: MachineId },
    #[error("not enough space on the host's disk")]
    DiskFull,
    /// The host has no processes, descriptors or memory left.
    #[error("the host is out of {0}")]
    Exhausted(&'static str),
    /// The machine's process ended while something was done with it.
    #[error("{0}")]
    MachineEnded(ProcessEnd),
    /// Anything else: the host's own fault. The text is for the operator's log.
    #[error("{attempted}")]
    Internal {
        attempted: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why there is no stream to a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("nothing listens on the port")]
    Refused,
    #[error("the machine does not run")]
    NotRunning,
    #[error("the guest does not answer: {0}")]
    Unreachable(String),
}

/// What a host does. Every call is finished or has left nothing behind when it returns; calls for one machine never overlap (`control` sees to it).
#[async_trait]
pub trait Host: Send + Sync + 'static {
    async fn build_root_disk(&self, request: BuildRootDisk, output: OutputSink) -> Result<RootDisk, HostError>;
    async fn capture_image(&self, request: CaptureImage, output: OutputSink) -> Result<CapturedImage, HostError>;
    /// Deletes an image's files. Deleting what is not there succeeds.
    async fn delete_image(&self, image: &ImageKey) -> Result<(), HostError>;

    /// Whether one more machine could be begun now; an error says what the host is short of. Cheap, and no promise: what runs short afterwards is the
    /// launch's own failure.
    async fn room(&self) -> Result<(), HostError>;
    async fn launch(&self, request: LaunchMachine) -> Result<StepTimings, HostError>;
    async fn suspend(&self, request: SuspendMachine) -> Result<Suspended, HostError>;
    async fn resume(&self, request: ResumeMachine) -> Result<StepTimings, HostError>;
    /// Stopping what is not there succeeds.
    async fn stop(&self, request: StopMachine) -> Result<StepTimings, HostError>;

    /// Deletes what [`StopMachine::keep_disk`] kept. Deleting what is not there succeeds.
    async fn discard(&self, machine: MachineId) -> Result<(), HostError>;
    /// Machines of which a disk is kept.
    async fn kept(&self) -> Result<Vec<MachineId>, HostError>;

    async fn usage(&self, machine: MachineId) -> Result<Usage, HostError>;
    async fn memory(&self) -> Result<HostMemory, HostError>;

    /// Opens a stream to a port on the guest's loopback.
    async fn connect(&self, machine: MachineId, port: u16) -> Result<Box<dyn GuestStream>, ConnectError>;

    /// Every machine with files on this host. Called at start: running ones have been adopted by then.
    async fn inventory(&self) -> Result<Vec<Machine>, HostError>;
    async fn recovery(&self) -> HostRecovery;
    /// Unasked ends of machines, from the moment of the call.
    fn exits(&self) -> broadcast::Receiver<MachineExit>;
    /// Which managed base image this host builds on: its own name and version, such as (`debian-13`, `13.2`).
    fn base(&self) -> (String, String);
}

/// Of a process's last words in a reason; the log has all that was kept.
const SHOWN_BYTES: usize = 512;

impl fmt::Display for ProcessEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            EndCause::Unknown => f.write_str("its virtual machine process ended"),
            EndCause::Code(code) => write!(f, "its virtual machine process ended with code {code}"),
            EndCause::Signal(signal) => write!(f, "its virtual machine process was ended by signal {signal}"),
            EndCause::MemoryLimit => {
                f.write_str("its virtual machine process was ended by the host's limit of memory for it (memory.max of its cgroup)")
            }
            EndCause::HostMemory => f.write_str("its virtual machine process was ended because the host had no memory left"),
        }?;
        match last_words(&self.last_words, SHOWN_BYTES) {
            nothing if nothing.is_empty() => Ok(()),
            words => write!(f, "\nLast output:\n{words}"),
        }
    }
}

impl HostRecovery {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            machines_adopted: self.machines_adopted + other.machines_adopted,
            machines_silent: self.machines_silent + other.machines_silent,
            suspensions_finished: self.suspensions_finished + other.suspensions_finished,
            resumes_undone: self.resumes_undone + other.resumes_undone,
            launches_undone: self.launches_undone + other.launches_undone,
            processes_ended: self.processes_ended + other.processes_ended,
            directories_removed: self.directories_removed + other.directories_removed,
        }
    }
}

impl ImageKey {
    /// `None` when `text` is not fit to be a directory name.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let text = text.into();
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        fits.then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ImageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl HostError {
    /// A failure of the host's own; when its cause is that the host has run out of something, that is what is said.
    pub fn internal<E>(attempted: impl Into<String>) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let attempted = attempted.into();
        move |source| {
            let source = source.into();
            crate::pressure::shortage(&*source).unwrap_or(Self::Internal { attempted, source })
        }
    }
}
