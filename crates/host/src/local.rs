//! This machine as a [`Host`]: its parts, and the machines that run on it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use emberbox_failpoints::Injected;
use tokio::sync::broadcast;

use crate::agent::AgentLink;
use crate::api::{
    BuildRootDisk, CaptureImage, CapturedImage, ConnectError, GuestStream, Host, HostError, HostMemory, HostRecovery, ImageKey,
    LaunchMachine, Machine, MachineExit, MachineId, MachineShape, OutputSink, ResumeMachine, RootDisk, StepTimings, StopMachine,
    SuspendMachine, Suspended, Usage,
};
use crate::base::{Base, BaseError};
use crate::cgroup::{Cgroups, Group};
use crate::engine::{self, Engine, EngineError, Vm};
use crate::failpoints;
use crate::layout::Layout;
use crate::machine;
use crate::network::{Cell, CellPool, NetworkConfig, NetworkError};
use crate::pressure::{self, Space};
use crate::snapshot::packed::Compression;
use crate::snapshot::verify::Verifier;
use crate::sys::namespace::SocketFactory;
use crate::usage;

/// Ends of machines that `control` has not read yet; it catches up with the inventory should it ever fall this far behind.
const EXITS_KEPT: usize = 1024;

/// What the operator decides about this host.
#[derive(Debug, Clone)]
pub struct LocalHostConfig {
    /// Everything the host keeps.
    pub data: PathBuf,
    /// The managed base that `guest/build` made.
    pub base: PathBuf,
    pub engine: EngineChoice,
    pub monitor: MonitorOptions,
    pub network: NetworkConfig,
    /// PEM certificates that builds trust beside the system's own; empty for none.
    pub extra_ca_pem: String,
    /// Bytes of the data directory's disk that no operation begins without.
    pub disk_reserve: u64,
    /// Of the memory of suspended machines.
    pub compression: Compression,
    /// A suspension that the disk has not written by then is given up, and the machine goes on. Less than control waits for any call: whoever is given up by
    /// that cannot undo anything.
    pub suspend_within: Duration,
    /// Whether what copies of an image touch is recorded and put in place before they run, where the engine can.
    pub working_sets: bool,
}

/// Which engine runs machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// The first that works here: `Kvm`, `QemuKvm`, `QemuTcg`.
    Auto,
    /// The own monitor (`emberbox-vmm`), or no start.
    Kvm,
    QemuTcg,
    QemuKvm,
}

/// How monitors of the KVM engine are started.
#[derive(Debug, Clone)]
pub struct MonitorOptions {
    /// Their program; beside this one when none is named.
    pub program: Option<PathBuf>,
    /// Whether a disk's reads may be under way together, where the kernel has what that takes.
    pub io_uring: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Base(#[from] BaseError),
    #[error("could not prepare the network for machines")]
    Network(#[from] NetworkError),
    #[error("could not prepare the data directory {}", .path.display())]
    Data {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} (machines need their own users, namespaces and devices: run as root)")]
    NotRoot(&'static str),
    #[error("the engine is not usable here")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The parts that operations work with.
pub struct LocalHost {
    pub(crate) layout: Layout,
    pub(crate) base: Base,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) cells: CellPool,
    pub(crate) sockets: SocketFactory,
    pub(crate) extra_ca_pem: String,
    pub(crate) verifier: Verifier,
    pub(crate) space: Space,
    cgroups: Arc<OnceLock<Cgroups>>,
    pub(crate) compression: Compression,
    pub(crate) suspend_within: Duration,
    pub(crate) working_sets: bool,
    /// Held for reading while a copy of an image comes into being, for writing while an image is deleted.
    pub(crate) image_use: tokio::sync::RwLock<()>,
    machines: Mutex<HashMap<MachineId, Arc<Running>>>,
    exits: broadcast::Sender<MachineExit>,
    recovery: OnceLock<HostRecovery>,
}

/// A machine whose process lives.
pub(crate) struct Running {
    pub image: ImageKey,
    pub shape: MachineShape,
    pub vm: Arc<dyn Vm>,
    pub cell: Cell,
    /// Held by a suspension and by what one that was given up has left to the disk.
    pub suspending: Arc<tokio::sync::Mutex<()>>,
}

impl Running {
    pub(crate) fn new(image: ImageKey, shape: MachineShape, vm: Arc<dyn Vm>, cell: Cell) -> Self {
        Self { image, shape, vm, cell, suspending: Arc::default() }
    }

    pub(crate) fn agent(&self, host: &LocalHost) -> AgentLink {
        host.agent(&self.cell, &self.vm)
    }

    /// Ends the process and takes its cell away.
    pub(crate) async fn end(&self) {
        self.vm.stop().await;
        self.cell.dismantle();
    }
}

impl LocalHost {
    /// Prepares everything and adopts the machines that a former daemon left running.
    pub async fn start(config: LocalHostConfig) -> Result<Arc<Self>, StartError> {
        if !nix::unistd::geteuid().is_root() {
            return Err(StartError::NotRoot("emberbox is not root"));
        }
        let failed = |source| StartError::Data { path: config.data.clone(), source };
        let layout = Layout::prepare(&config.data).map_err(failed)?;
        let base = Base::open(&config.base)?;
        let (choice, monitor) = (config.engine, config.monitor.clone());
        let chosen = tokio::task::spawn_blocking(move || engine::choose(choice, &monitor)).await;
        let engine::Chosen { engine, why } = chosen.map_err(|error| StartError::Engine(error.into()))?.map_err(StartError::Engine)?;
        tracing::info!(identity = ?engine.identity(), why, "engine chosen");
        let (told, cgroups) = (engine.clone(), Arc::new(OnceLock::<Cgroups>::new()));
        let groups = cgroups.clone();
        let is_ready = move |uid| told.cell_is_ready(uid, &|| groups.get()?.prepare(uid).ok()?);
        let cells = CellPool::start(&config.network, &layout.network(), Arc::new(is_ready)).await?;
        cgroups.get_or_init(|| Cgroups::start(cells.name()));
        let working_sets = config.working_sets && engine.uses_working_sets();
        let host = Arc::new(Self {
            layout,
            base,
            engine,
            cells,
            sockets: SocketFactory::start().map_err(failed)?,
            extra_ca_pem: config.extra_ca_pem.clone(),
            verifier: Verifier::default(),
            compression: config.compression,
            suspend_within: config.suspend_within,
            working_sets,
            cgroups,
            space: Space::new(config.data.clone(), config.disk_reserve),
            image_use: tokio::sync::RwLock::default(),
            machines: Mutex::new(HashMap::new()),
            exits: broadcast::Sender::new(EXITS_KEPT),
            recovery: OnceLock::new(),
        });
        let recovery = machine::adopt::adopt_all(&host).await.map_err(failed)?;
        host.recovery.get_or_init(|| recovery);
        tokio::spawn(machine::images::verify_all(Arc::downgrade(&host)));
        Ok(host)
    }

    /// Takes away what was made ahead. Machines go on; nothing may be asked of this host any more.
    pub async fn close(&self) {
        self.cells.close().await;
    }

    /// The cgroup of a machine's process; `None` where there are no limits.
    pub(crate) fn group(&self, uid: u32, shape: MachineShape) -> std::io::Result<Option<Group>> {
        self.cgroups.get().map_or(Ok(None), |cgroups| cgroups.create(uid, shape))
    }

    /// How to reach the agent of the machine that `vm` runs in `cell`.
    pub(crate) fn agent(&self, cell: &Cell, vm: &Arc<dyn Vm>) -> AgentLink {
        AgentLink { sockets: self.sockets.clone(), namespace: cell.namespace.clone(), vm: vm.clone() }
    }

    pub(crate) fn running(&self, machine: MachineId) -> Option<Arc<Running>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).get(&machine).cloned()
    }

    /// Makes a machine known, and tells when its process ends unasked.
    pub(crate) fn insert(self: &Arc<Self>, machine: MachineId, running: Arc<Running>) {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).insert(machine, running.clone());
        let host = Arc::downgrade(self);
        tokio::spawn(async move {
            let end = running.vm.ended().await;
            running.cell.dismantle();
            let Some(host) = host.upgrade() else { return };
            if host.remove_if(machine, &running) {
                // All of what is kept of its output is for the operator.
                tracing::warn!(%machine, cause = ?end.cause, output = end.last_words, "a machine's process ended unasked");
                // Nobody listens while the daemon starts or stops.
                let _ = host.exits.send(MachineExit { machine, end });
            }
        });
    }

    /// Whether a process is that of a machine known to run.
    pub(crate) fn runs_as(&self, pid: i32) -> bool {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).values().any(|running| running.vm.process().pid == pid)
    }

    /// Takes a machine out before its process is ended on purpose.
    pub(crate) fn remove(&self, machine: MachineId) -> Option<Arc<Running>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).remove(&machine)
    }

    fn remove_if(&self, machine: MachineId, running: &Arc<Running>) -> bool {
        let mut machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let same = machines.get(&machine).is_some_and(|known| Arc::ptr_eq(known, running));
        same && machines.remove(&machine).is_some()
    }
}

/// The trait's calls, each in its own file. The handle is an `Arc` because machines are watched beyond a call.
pub struct HostHandle(pub Arc<LocalHost>);

#[async_trait]
impl Host for HostHandle {
    async fn build_root_disk(&self, request: BuildRootDisk, output: OutputSink) -> Result<RootDisk, HostError> {
        machine::build::build_root_disk(&self.0, request, output).await
    }

    async fn capture_image(&self, request: CaptureImage, output: OutputSink) -> Result<CapturedImage, HostError> {
        machine::capture::capture_image(&self.0, request, output).await
    }

    async fn delete_image(&self, image: &ImageKey) -> Result<(), HostError> {
        machine::images::delete(&self.0, image).await?;
        Ok(failpoints::DELETE_IMAGE_FILES.pass().await?)
    }

    async fn room(&self) -> Result<(), HostError> {
        machine::launch::room(&self.0)
    }

    async fn launch(&self, request: LaunchMachine) -> Result<StepTimings, HostError> {
        machine::launch::launch(&self.0, request).await
    }

    async fn suspend(&self, request: SuspendMachine) -> Result<Suspended, HostError> {
        machine::suspend::suspend(&self.0, request).await
    }

    async fn resume(&self, request: ResumeMachine) -> Result<StepTimings, HostError> {
        machine::resume::resume(&self.0, request).await
    }

    async fn stop(&self, request: StopMachine) -> Result<StepTimings, HostError> {
        machine::stop::stop(&self.0, request).await
    }

    async fn discard(&self, machine: MachineId) -> Result<(), HostError> {
        let directory = self.0.layout.kept(machine).0;
        machine::blocking(move || remove_directory(&directory), "delete a kept disk").await
    }

    async fn kept(&self) -> Result<Vec<MachineId>, HostError> {
        self.0.layout.kept_machines().map_err(HostError::internal("list the kept disks"))
    }

    async fn usage(&self, machine: MachineId) -> Result<Usage, HostError> {
        let running = self.0.running(machine).ok_or(HostError::NoSuchMachine(machine))?;
        usage::of_process(running.vm.process().pid).map_err(HostError::internal("read a machine's CPU time"))
    }

    async fn memory(&self) -> Result<HostMemory, HostError> {
        usage::host_memory().map_err(HostError::internal("read the host's memory"))
    }

    async fn recovery(&self) -> HostRecovery {
        *self.0.recovery.get().unwrap_or(&HostRecovery::default())
    }

    async fn connect(&self, machine: MachineId, port: u16) -> Result<Box<dyn GuestStream>, ConnectError> {
        machine::connect::connect(&self.0, machine, port).await
    }

    async fn inventory(&self) -> Result<Vec<Machine>, HostError> {
        machine::adopt::inventory(&self.0).map_err(HostError::internal("list the machines of this host"))
    }

    fn exits(&self) -> broadcast::Receiver<MachineExit> {
        self.0.exits.subscribe()
    }

    fn base(&self) -> (String, String) {
        (self.0.base.name.clone(), self.0.base.debian.clone())
    }
}

/// Removes a directory, present or not.
pub(crate) fn remove_directory(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl From<Injected> for HostError {
    fn from(injected: Injected) -> Self {
        Self::internal("take a step")(injected)
    }
}

impl From<EngineError> for HostError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Ended(end) => pressure::shortage_of(&end).unwrap_or(Self::MachineEnded(end)),
            error => Self::internal("run the virtual machine")(error),
        }
    }
}

impl From<NetworkError> for HostError {
    fn from(error: NetworkError) -> Self {
        Self::internal("make a network cell")(error)
    }
}
