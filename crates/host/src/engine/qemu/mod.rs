//! The QEMU engine: one QEMU process per machine, with KVM where the CPU offers it and TCG otherwise.
//!
//! The process runs as a user of its own in its cell, under QEMU's seccomp sandbox, with no privileges, no path it could open that matters, and no
//! monitor but one private socket. Its machine is `microvm`, described by ACPI.

mod accelerator;
mod command;
mod program;
mod qmp;

pub(crate) use accelerator::{Accelerator, has_virtualization};

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::json;

use super::process::VmProcess;
use super::{Boot, Engine, EngineError, GUEST_ARGUMENTS, Restore, Vm, VmSpec, channel};
use crate::cgroup::{self, Group};
use crate::snapshot::EngineIdentity;
use crate::sys::namespace::NetworkNamespace;
use crate::sys::pidfd::ProcessIdentity;
use crate::sys::spawn::{Confinement, sealed_file, spawn_confined};
use crate::{MachineShape, ProcessEnd, StepTimings};
use command::{MACHINE, QemuCommand};
use program::Program;
use qmp::Qmp;

static PRIVATE_MEMORY_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/private_memory.so"));

const CONTROL_SOCKET: &str = "qmp.sock";
/// Disks, memory, sockets and QEMU's own; a guest cannot make it open more.
const OPEN_FILES: u64 = 256;
/// The name under which QEMU gets the descriptor it writes its state to.
const STATE_FD: &str = "state";

pub(crate) struct QemuEngine {
    program: Program,
    identity: EngineIdentity,
    library: OwnedFd,
}

impl QemuEngine {
    /// Finds QEMU.
    pub(crate) fn probe(accelerator: Accelerator) -> Result<Self, EngineError> {
        let program = Program::find(accelerator).map_err(EngineError::Start)?;
        let identity = EngineIdentity {
            engine: accelerator.engine_name().into(),
            version: format!("{}, machine {MACHINE}", program.version),
            cpu_profile: accelerator.cpu_profile(),
            tsc_khz: crate::sys::tsc::measure_khz(),
        };
        let library = sealed_file(c"emberbox-private-memory", PRIVATE_MEMORY_LIBRARY).map_err(EngineError::Start)?;
        Ok(Self { program, identity, library })
    }

    fn kernel_arguments(&self) -> String {
        let own = self.program.accelerator.kernel_arguments();
        format!("{GUEST_ARGUMENTS} tsc_early_khz={} {own}", self.identity.tsc_khz)
    }

    fn start(&self, command: QemuCommand, home: Home) -> io::Result<QemuVm> {
        let QemuCommand { command, inherited } = command;
        let confinement = Confinement {
            uid: home.uid,
            group: self.program.accelerator.device_group(),
            namespace: home.namespace,
            entrance: home.group.as_ref().map(Group::entrance).transpose()?,
            open_files: OPEN_FILES,
            threads: cgroup::most_threads(home.shape).into(),
            inherited,
        };
        let process = VmProcess::start(command, |command| spawn_confined(command, confinement))?;
        process.keep_group(home.group);
        Ok(QemuVm { process, directory: home.directory, incoming: Mutex::new(None) })
    }
}

/// Where a process is going to live, and as what.
struct Home {
    shape: MachineShape,
    uid: u32,
    namespace: NetworkNamespace,
    directory: PathBuf,
    group: Option<Group>,
}

impl Home {
    fn of(spec: &mut VmSpec) -> Self {
        Self {
            shape: spec.shape,
            uid: spec.uid,
            namespace: spec.namespace.clone(),
            directory: spec.directory.clone(),
            group: spec.group.take(),
        }
    }
}

#[async_trait]
impl Engine for QemuEngine {
    fn identity(&self) -> &EngineIdentity {
        &self.identity
    }

    async fn boot(&self, mut spec: VmSpec, boot: Boot) -> Result<Arc<dyn Vm>, EngineError> {
        let home = Home::of(&mut spec);
        let control = channel::listen(&home.directory, CONTROL_SOCKET).map_err(EngineError::Start)?;
        // QEMU opens the memory file anew through its descriptor, as its own user.
        nix::unistd::fchown(&boot.memory, Some(home.uid.into()), None).map_err(|errno| EngineError::Start(errno.into()))?;
        let command = QemuCommand::new(&self.program, spec, control);
        let command = command.boot(boot, &self.kernel_arguments(), home.shape.memory_mib);
        Ok(Arc::new(self.start(command, home).map_err(EngineError::Start)?))
    }

    async fn restore(&self, mut spec: VmSpec, restore: Restore) -> Result<Arc<dyn Vm>, EngineError> {
        let home = Home::of(&mut spec);
        let control = channel::listen(&home.directory, CONTROL_SOCKET).map_err(EngineError::Start)?;
        let library = self.library.try_clone().map_err(EngineError::Start)?;
        let command = QemuCommand::new(&self.program, spec, control);
        let (command, state) = command.restore(restore, library, home.shape.memory_mib);
        let mut vm = self.start(command, home).map_err(EngineError::Start)?;
        vm.incoming = Mutex::new(Some(state));
        Ok(Arc::new(vm))
    }

    /// QEMU's accelerators have no way to be told of pages.
    fn uses_working_sets(&self) -> bool {
        false
    }

    fn runs_cpus_in_parallel(&self) -> bool {
        !matches!(self.program.accelerator, Accelerator::Tcg)
    }

    /// QEMU is told everything on its command line: nothing of it can be prepared.
    fn cell_is_ready(&self, _uid: u32, _group: &dyn Fn() -> Option<Group>) {}

    async fn adopt(&self, process: ProcessIdentity, directory: PathBuf) -> Result<Arc<dyn Vm>, EngineError> {
        let process = VmProcess::adopt(process).map_err(EngineError::Control)?;
        Ok(Arc::new(QemuVm { process, directory, incoming: Mutex::new(None) }))
    }
}

/// One QEMU process.
struct QemuVm {
    process: VmProcess,
    directory: PathBuf,
    /// The descriptor that the state comes from, until it has been loaded.
    incoming: Mutex<Option<i32>>,
}

impl QemuVm {
    /// Sends the commands of a restore, which QEMU may find waiting when it comes up.
    async fn load(&self, state: i32) -> Result<(), EngineError> {
        let mut control = Qmp::connect(&self.directory, CONTROL_SOCKET).await?;
        control.run(&[ignore_shared_memory(), ("migrate-incoming", json!({"uri": format!("fd:{state}")}))]).await?;
        control.migration_ended().await?;
        // The state was saved paused, so it comes back paused.
        control.execute("cont", json!({})).await.map(|_| ())
    }

    async fn connect(&self) -> Result<Qmp, EngineError> {
        let mut control = Qmp::connect(&self.directory, CONTROL_SOCKET).await?;
        control.run(&[]).await?;
        Ok(control)
    }

    async fn execute(&self, command: &'static str) -> Result<(), EngineError> {
        self.connect().await?.execute(command, json!({})).await.map(|_| ())
    }

    async fn save(&self, to: File) -> Result<(), EngineError> {
        let mut control = self.connect().await?;
        let (capability, arguments) = ignore_shared_memory();
        control.execute(capability, arguments).await?;
        control.give(STATE_FD, to.as_fd()).await?;
        control.execute("migrate", json!({"uri": format!("fd:{STATE_FD}")})).await?;
        control.migration_ended().await
    }
}

fn ignore_shared_memory() -> (&'static str, serde_json::Value) {
    ("migrate-set-capabilities", json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]}))
}

#[async_trait]
impl Vm for QemuVm {
    fn namespace(&self) -> io::Result<NetworkNamespace> {
        NetworkNamespace::of_process(self.process.identity().pid)
    }

    fn process(&self) -> ProcessIdentity {
        self.process.identity()
    }

    /// QEMU does not say where its time goes.
    async fn run_restored(&self) -> Result<StepTimings, EngineError> {
        let state = self.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(state) = state else { return Ok(StepTimings::default()) };
        tokio::select! {
            end = self.process.end() => Err(EngineError::Ended(end)),
            loaded = self.process.explained(self.load(state)) => loaded.map(|()| StepTimings::default()),
        }
    }

    async fn pause(&self) -> Result<(), EngineError> {
        self.process.explained(self.execute("stop")).await
    }

    async fn resume(&self) -> Result<(), EngineError> {
        self.process.explained(self.execute("cont")).await
    }

    async fn save_state(&self, to: File) -> Result<(), EngineError> {
        self.process.explained(self.save(to)).await
    }

    fn kill(&self) {
        self.process.kill();
    }

    async fn stop(&self) {
        self.process.stop().await;
    }

    async fn ended(&self) -> ProcessEnd {
        self.process.end().await
    }
}
