//! A scripted host, builder and clock: control's tests without a machine. For tests alone.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use emberbox_host::{
    BuildRootDisk, CaptureImage, CapturedImage, ConnectError, ContainerConfig, EndCause, GuestStream, Host, HostError, HostMemory,
    HostRecovery, ImageKey, LaunchMachine, Machine, MachineExit, MachineId, MachineStatus, Output, OutputSink, ProcessEnd, ResumeMachine,
    RootDisk, StepTimings, StopMachine, SuspendMachine, Suspended, Usage,
};
use emberbox_store::{IdentityId, IdentityRecord, IdentitySettings, RoleSettings, Store, StoreError, UnixMillis};
use emberbox_wire::audit::{AuditEvent, AuditLog};
use emberbox_wire::ids::AccountId;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Notify, broadcast};

use crate::access::ids::IdOf;
use crate::access::{Access, OpenAccessError};
use crate::clock::{Clock, SinceBoot};
use crate::config::{ControlConfig, EndpointSettings, LifeSettings};
use crate::control::{Collaborators, Control, StartError};
use crate::events::{Event, EventSink};
use crate::image_builder::{BuildFailure, BuildImage, BuiltImage, ImageBuilder, SnapshotSizes};
use crate::limits::{Limits, Rates};
use crate::logs::{LogEntry, LogSink};
use crate::token::TokenKeys;

/// Time that moves when told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<Clocks>);

#[derive(Debug)]
struct Clocks {
    wall: i64,
    boot: u32,
    since_boot: Duration,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self(Mutex::new(Clocks { wall: 1_750_000_000_000, boot: 1, since_boot: Duration::from_secs(1000) }))
    }
}

impl ManualClock {
    fn clocks(&self) -> MutexGuard<'_, Clocks> {
        self.0.lock().expect("no holder of this lock can panic")
    }

    /// Time passes, seen by the daemon or not: a suspended host is the same to both clocks.
    pub fn advance(&self, by: Duration) {
        let mut clocks = self.clocks();
        clocks.wall += i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        clocks.since_boot += by;
    }

    /// Somebody sets the wall clock.
    pub fn jump_wall(&self, seconds: i64) {
        self.clocks().wall += seconds * 1000;
    }

    /// The host is off for a while and starts again.
    pub fn reboot(&self, off: Duration) {
        let mut clocks = self.clocks();
        clocks.wall += i64::try_from(off.as_millis()).unwrap_or(i64::MAX);
        clocks.boot += 1;
        clocks.since_boot = Duration::from_secs(1);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.clocks().wall)
    }

    fn since_boot(&self) -> SinceBoot {
        let clocks = self.clocks();
        SinceBoot { boot: clocks.boot.to_string(), time: clocks.since_boot }
    }
}

/// A call that a test can script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostCall {
    Room,
    Launch,
    Suspend,
    Resume,
    Stop,
    DeleteImage,
}

type Fault = Box<dyn FnOnce() -> HostError + Send>;

#[derive(Default)]
struct HostState {
    machines: HashMap<MachineId, Machine>,
    /// Taken in order, one per call.
    faults: HashMap<HostCall, Vec<Fault>>,
    /// Calls of these kinds wait until released.
    held: HashSet<HostCall>,
    counts: HashMap<HostCall, u32>,
    /// Calls under way per machine: never more than one, says the contract.
    busy: HashSet<MachineId>,
    overlaps: u32,
    launches: Vec<LaunchMachine>,
    stops: Vec<StopMachine>,
    kept: HashSet<MachineId>,
    cpu: HashMap<MachineId, Duration>,
    memory: Option<HostMemory>,
}

/// A host in memory. `connect` answers with a stream that says `hello` and the port.
pub struct FakeHost {
    state: Mutex<HostState>,
    released: Notify,
    exits: broadcast::Sender<MachineExit>,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self { state: Mutex::default(), released: Notify::new(), exits: broadcast::channel(16).0 }
    }
}

impl FakeHost {
    fn state(&self) -> MutexGuard<'_, HostState> {
        self.state.lock().expect("no holder of this lock can panic")
    }

    /// The next call of this kind, not failing yet, fails.
    pub fn fail(&self, call: HostCall, fault: impl FnOnce() -> HostError + Send + 'static) {
        self.state().faults.entry(call).or_default().push(Box::new(fault));
    }

    /// Calls of this kind wait for [`FakeHost::release`].
    pub fn hold(&self, call: HostCall) {
        self.state().held.insert(call);
    }

    pub fn release(&self, call: HostCall) {
        self.state().held.remove(&call);
        self.released.notify_waiters();
    }

    /// How many calls of this kind have begun.
    pub fn count(&self, call: HostCall) -> u32 {
        self.state().counts.get(&call).copied().unwrap_or_default()
    }

    /// How often two calls for one machine were under way at once.
    pub fn overlaps(&self) -> u32 {
        self.state().overlaps
    }

    pub fn status(&self, machine: MachineId) -> Option<MachineStatus> {
        self.state().machines.get(&machine).map(|machine| machine.status)
    }

    /// Puts a machine there, or changes it, behind control's back.
    pub fn put(&self, machine: MachineId, status: MachineStatus) {
        let image = ImageKey::new("image").expect("a valid key");
        self.state().machines.insert(machine, Machine { machine, image: Some(image), status });
    }

    /// Takes a machine away behind control's back.
    pub fn forget(&self, machine: MachineId) {
        self.state().machines.remove(&machine);
    }

    /// The daemon that made them has died: calls under way are no more.
    pub fn forget_calls(&self) {
        self.state().busy.clear();
    }

    pub fn is_busy(&self, machine: MachineId) -> bool {
        self.state().busy.contains(&machine)
    }

    pub fn kept_disks(&self) -> Vec<MachineId> {
        self.state().kept.iter().copied().collect()
    }

    /// The machine computes for so long.
    pub fn compute(&self, machine: MachineId, time: Duration) {
        *self.state().cpu.entry(machine).or_default() += time;
    }

    /// So much of the host's memory is available.
    pub fn memory_available(&self, percent: u64) {
        self.state().memory = Some(HostMemory { total_bytes: 100 << 20, available_bytes: percent << 20 });
    }

    /// The machine's process ends unasked.
    pub fn exit(&self, machine: MachineId, last_words: &str) {
        self.put(machine, MachineStatus::Lost);
        let end = ProcessEnd { cause: EndCause::Unknown, last_words: last_words.to_owned() };
        let _ = self.exits.send(MachineExit { machine, end });
    }

    pub fn launches(&self) -> Vec<LaunchMachine> {
        self.state().launches.clone()
    }

    pub fn stops(&self) -> Vec<StopMachine> {
        self.state().stops.clone()
    }

    async fn enter(&self, call: HostCall, machine: Option<MachineId>) -> Result<(), HostError> {
        {
            let mut state = self.state();
            *state.counts.entry(call).or_default() += 1;
            if let Some(machine) = machine
                && !state.busy.insert(machine)
            {
                state.overlaps += 1;
            }
        }
        loop {
            let released = self.released.notified();
            if !self.state().held.contains(&call) {
                break;
            }
            // Bounded, so that a release between the look and the wait is found.
            let _ = tokio::time::timeout(Duration::from_millis(20), released).await;
        }
        let fault = self.state().faults.get_mut(&call).and_then(|faults| (!faults.is_empty()).then(|| faults.remove(0)));
        match fault {
            Some(fault) => {
                self.leave(machine);
                Err(fault())
            }
            None => Ok(()),
        }
    }

    fn leave(&self, machine: Option<MachineId>) {
        if let Some(machine) = machine {
            self.state().busy.remove(&machine);
        }
    }

    /// Moves a machine from one status to another, as suspend and resume do.
    fn change(&self, machine: MachineId, from: MachineStatus, to: MachineStatus) -> Result<(), HostError> {
        self.leave(Some(machine));
        match self.state().machines.get_mut(&machine) {
            Some(found) if found.status == from => {
                found.status = to;
                Ok(())
            }
            Some(_) | None => Err(HostError::NoSuchMachine(machine)),
        }
    }
}

fn steps(name: &str) -> StepTimings {
    StepTimings(vec![(name.to_owned(), Duration::from_micros(1500))])
}

#[async_trait]
impl Host for FakeHost {
    async fn build_root_disk(&self, _request: BuildRootDisk, _output: OutputSink) -> Result<RootDisk, HostError> {
        Ok(RootDisk { config: ContainerConfig::default(), used_bytes: 1, steps: steps("build") })
    }

    async fn capture_image(&self, _request: CaptureImage, _output: OutputSink) -> Result<CapturedImage, HostError> {
        Ok(CapturedImage { memory_bytes: 2, disk_bytes: 3, steps: steps("capture") })
    }

    async fn delete_image(&self, _image: &ImageKey) -> Result<(), HostError> {
        self.enter(HostCall::DeleteImage, None).await
    }

    async fn room(&self) -> Result<(), HostError> {
        self.enter(HostCall::Room, None).await
    }

    async fn launch(&self, request: LaunchMachine) -> Result<StepTimings, HostError> {
        self.state().launches.push(request.clone());
        self.enter(HostCall::Launch, Some(request.machine)).await?;
        let machine = Machine { machine: request.machine, image: Some(request.image), status: MachineStatus::Running };
        self.state().machines.insert(request.machine, machine);
        self.leave(Some(request.machine));
        Ok(steps("restore"))
    }

    async fn suspend(&self, request: SuspendMachine) -> Result<Suspended, HostError> {
        self.enter(HostCall::Suspend, Some(request.machine)).await?;
        self.change(request.machine, MachineStatus::Running, MachineStatus::Suspended)?;
        Ok(Suspended { memory_bytes: 1, disk_bytes: 1, steps: steps("snapshot") })
    }

    async fn resume(&self, request: ResumeMachine) -> Result<StepTimings, HostError> {
        self.enter(HostCall::Resume, Some(request.machine)).await?;
        self.change(request.machine, MachineStatus::Suspended, MachineStatus::Running)?;
        Ok(steps("load"))
    }

    async fn stop(&self, request: StopMachine) -> Result<StepTimings, HostError> {
        self.state().stops.push(request.clone());
        self.enter(HostCall::Stop, Some(request.machine)).await?;
        let mut state = self.state();
        if state.machines.remove(&request.machine).is_some() && request.keep_disk {
            state.kept.insert(request.machine);
        }
        drop(state);
        self.leave(Some(request.machine));
        Ok(steps("stop"))
    }

    async fn discard(&self, machine: MachineId) -> Result<(), HostError> {
        self.state().kept.remove(&machine);
        Ok(())
    }

    async fn kept(&self) -> Result<Vec<MachineId>, HostError> {
        Ok(self.state().kept.iter().copied().collect())
    }

    async fn usage(&self, machine: MachineId) -> Result<Usage, HostError> {
        match self.status(machine) {
            Some(MachineStatus::Running) => Ok(Usage { cpu: self.state().cpu.get(&machine).copied().unwrap_or_default() }),
            Some(MachineStatus::Suspended | MachineStatus::Lost) | None => Err(HostError::NoSuchMachine(machine)),
        }
    }

    async fn memory(&self) -> Result<HostMemory, HostError> {
        Ok(self.state().memory.unwrap_or(HostMemory { total_bytes: 100, available_bytes: 100 }))
    }

    async fn recovery(&self) -> HostRecovery {
        HostRecovery::default()
    }

    async fn connect(&self, machine: MachineId, port: u16) -> Result<Box<dyn GuestStream>, ConnectError> {
        match self.status(machine) {
            Some(MachineStatus::Running) if port != 1 => {
                let (mut guest, ours) = tokio::io::duplex(64);
                let _ = guest.write_all(format!("hello {port}").as_bytes()).await;
                Ok(Box::new(ours))
            }
            Some(MachineStatus::Running) => Err(ConnectError::Refused),
            Some(MachineStatus::Suspended | MachineStatus::Lost) | None => Err(ConnectError::NotRunning),
        }
    }

    async fn inventory(&self) -> Result<Vec<Machine>, HostError> {
        Ok(self.state().machines.values().cloned().collect())
    }

    fn exits(&self) -> broadcast::Receiver<MachineExit> {
        self.exits.subscribe()
    }

    fn base(&self) -> (String, String) {
        ("debian-13".to_owned(), "13.2".to_owned())
    }
}

/// A builder that makes nothing.
#[derive(Default)]
pub struct FakeBuilder {
    failure: Mutex<Option<BuildFailure>>,
    held: Mutex<bool>,
    under_way: AtomicU32,
    most_at_once: AtomicU32,
    requests: Mutex<Vec<BuildImage>>,
}

impl FakeBuilder {
    /// Builds fail like this from now on; `None` makes them succeed again.
    pub fn fail(&self, failure: Option<BuildFailure>) {
        *self.failure.lock().expect("no holder of this lock can panic") = failure;
    }

    /// Builds wait while held.
    pub fn hold(&self, held: bool) {
        *self.held.lock().expect("no holder of this lock can panic") = held;
    }

    pub fn most_at_once(&self) -> u32 {
        self.most_at_once.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> Vec<BuildImage> {
        self.requests.lock().expect("no holder of this lock can panic").clone()
    }

    fn is_held(&self) -> bool {
        *self.held.lock().expect("no holder of this lock can panic")
    }
}

#[async_trait]
impl ImageBuilder for FakeBuilder {
    async fn build(&self, request: BuildImage, output: OutputSink) -> Result<BuiltImage, BuildFailure> {
        self.requests.lock().expect("no holder of this lock can panic").push(request);
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        output(Output::Step("fetch".into()));
        output(Output::Line("a line".into()));
        while self.is_held() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        match self.failure.lock().expect("no holder of this lock can panic").clone() {
            Some(failure) => Err(failure),
            None => {
                let sizes = SnapshotSizes { code_install_bytes: Some(10), memory_bytes: Some(20), disk_bytes: Some(30) };
                Ok(BuiltImage { config: ContainerConfig::default(), sizes, steps: steps("container_build") })
            }
        }
    }
}

/// Log lines in memory.
#[derive(Debug, Default)]
pub struct MemoryLogs(Mutex<Vec<LogEntry>>);

impl MemoryLogs {
    pub fn entries(&self) -> Vec<LogEntry> {
        self.0.lock().expect("no holder of this lock can panic").clone()
    }
}

impl LogSink for MemoryLogs {
    fn write(&self, entry: LogEntry) {
        self.0.lock().expect("no holder of this lock can panic").push(entry);
    }
}

/// Audit events in memory.
#[derive(Debug, Default)]
pub struct MemoryAudit(Mutex<Vec<AuditEvent>>);

impl MemoryAudit {
    pub fn events(&self) -> Vec<AuditEvent> {
        self.0.lock().expect("no holder of this lock can panic").clone()
    }
}

impl AuditLog for MemoryAudit {
    fn event(&self, event: AuditEvent) {
        self.0.lock().expect("no holder of this lock can panic").push(event);
    }
}

/// The event stream in memory.
#[derive(Debug, Default)]
pub struct MemoryEvents(Mutex<Vec<Event>>);

impl MemoryEvents {
    pub fn all(&self) -> Vec<Event> {
        self.0.lock().expect("no holder of this lock can panic").clone()
    }
}

impl EventSink for MemoryEvents {
    fn emit(&self, event: Event) {
        self.0.lock().expect("no holder of this lock can panic").push(event);
    }
}

/// Why a test's control does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartPartsError {
    #[error(transparent)]
    Access(#[from] OpenAccessError),
    #[error(transparent)]
    Control(#[from] StartError),
}

/// A role that Lambda may assume, without permissions.
fn role(account: &AccountId, name: &str) -> IdentityRecord {
    let trust = r#"{"Statement": {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}}"#;
    let settings = RoleSettings { trust: trust.into(), description: None, max_session_seconds: 3600 };
    IdentityRecord {
        id: IdentityId(IdOf::Role.random()),
        account: account.clone(),
        name: name.to_owned(),
        path: "/".to_owned(),
        created_at: UnixMillis(0),
        settings: IdentitySettings::Role(settings),
    }
}

/// What the parts of a test's control are, kept to be looked at and to start another control over the same records.
pub struct Parts {
    pub store: Store,
    pub host: Arc<FakeHost>,
    pub builder: Arc<FakeBuilder>,
    pub logs: Arc<MemoryLogs>,
    pub audit: Arc<MemoryAudit>,
    pub events: Arc<MemoryEvents>,
    pub lives: LifeSettings,
    pub clock: Arc<ManualClock>,
    /// None to speak of, unless a test sets some.
    pub limits: Limits,
}

impl Parts {
    /// Fakes around a store with the account 123456789012 and its roles `build` and `run`, which Lambda may assume.
    pub async fn new() -> Result<Self, StoreError> {
        let store = Store::in_memory().await?;
        Self::prepare(&store).await?;
        Ok(Self::over(store))
    }

    /// The account and its roles, in an empty store.
    pub async fn prepare(store: &Store) -> Result<(), StoreError> {
        let account = AccountId("123456789012".into());
        store.insert_account(&account, UnixMillis(0)).await?;
        for name in ["build", "run"] {
            store.insert_identity(&role(&account, name)).await?;
        }
        Ok(())
    }

    /// Fakes around a prepared store.
    pub fn over(store: Store) -> Self {
        Self {
            store,
            host: Arc::default(),
            builder: Arc::default(),
            logs: Arc::default(),
            audit: Arc::default(),
            events: Arc::default(),
            lives: LifeSettings::default(),
            clock: Arc::default(),
            limits: Limits { rates: Rates::uniform(f64::MAX, u32::MAX), ..Limits::for_host(u64::from(u32::MAX)) },
        }
    }

    /// A control over these parts.
    pub async fn start(&self, endpoint: EndpointSettings) -> Result<Arc<Control>, StartPartsError> {
        let config = ControlConfig {
            region: "us-east-1".into(),
            default_account: AccountId("123456789012".into()),
            endpoint,
            parallel_builds: 2,
            limits: self.limits.clone(),
            lives: self.lives.clone(),
        };
        let with = Collaborators {
            access: Access::open(self.store.clone(), "us-east-1", self.clock.clone()).await?,
            host: self.host.clone(),
            builder: self.builder.clone(),
            tokens: Arc::new(TokenKeys::generate()),
            logs: self.logs.clone(),
            audit: self.audit.clone(),
            events: self.events.clone(),
        };
        Ok(Control::start(config, with).await?)
    }
}
