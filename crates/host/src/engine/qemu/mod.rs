//! The QEMU engine: one QEMU process per machine, with KVM where the CPU offers it and TCG otherwise.
//!
//! The process runs as a user of its own in its cell, under QEMU's seccomp sandbox, with no privileges, no path it could open that matters, and no
//! monitor but one private socket. Its machine is `microvm`, described by ACPI.

mod accelerator;
mod command;
mod output;
mod qmp;

pub(crate) use accelerator::Accelerator;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::{Boot, Engine, EngineError, Restore, Vm, VmSpec};
use crate::cgroup::Group;
use crate::snapshot::EngineIdentity;
use crate::sys::pidfd::{ProcessHandle, ProcessIdentity};
use crate::sys::spawn::{Confinement, sealed_file, spawn_confined};
use command::{MACHINE, QemuCommand};
use output::Output;
use qmp::Qmp;

static PRIVATE_MEMORY_LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/private_memory.so"));

const CONTROL_SOCKET: &str = "qmp.sock";
/// Disks, memory, sockets and QEMU's own; a guest cannot make it open more.
const OPEN_FILES: u64 = 256;
/// SIGKILL cannot be refused; a process in an uninterruptible wait may take a while.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// What a stock kernel looks for or tests at boot that this machine does not have or need: a second less without hardware virtualization.
const PROBES_OFF: &str = "edd=off 8250.nr_uarts=1 cryptomgr.notests rcupdate.rcu_expedited=1";
/// The name under which QEMU gets the descriptor it writes its state to.
const STATE_FD: &str = "state";

pub(crate) struct QemuEngine {
    binary: String,
    accelerator: Accelerator,
    identity: EngineIdentity,
    library: OwnedFd,
}

impl QemuEngine {
    /// Finds QEMU and what it can do here.
    pub(crate) fn probe(accelerator: Option<Accelerator>) -> Result<Self, EngineError> {
        let accelerator = accelerator.unwrap_or_else(Accelerator::detect);
        let binary = "qemu-system-x86_64".to_owned();
        let version = accelerator::version(&binary).map_err(EngineError::Start)?;
        let identity = EngineIdentity {
            engine: accelerator.engine_name().into(),
            version: format!("{version}, machine {MACHINE}"),
            cpu_profile: accelerator.cpu_profile(),
            tsc_khz: crate::sys::tsc::measure_khz(),
        };
        let library = sealed_file(c"emberbox-private-memory", PRIVATE_MEMORY_LIBRARY).map_err(EngineError::Start)?;
        Ok(Self { binary, accelerator, identity, library })
    }

    fn kernel_arguments(&self) -> String {
        let own = self.accelerator.kernel_arguments();
        format!("console=ttyS0 quiet reboot=t panic=-1 {PROBES_OFF} random.trust_cpu=off tsc_early_khz={} {own}", self.identity.tsc_khz)
    }

    fn start(
        &self,
        command: QemuCommand,
        uid: u32,
        namespace: crate::sys::namespace::NetworkNamespace,
        directory: PathBuf,
        group: Option<Group>,
    ) -> io::Result<QemuVm> {
        let QemuCommand { mut command, inherited } = command;
        let entrance = group.as_ref().map(Group::entrance).transpose()?;
        let (sender, receiver) = pipe::pipe()?;
        let sender = sender.into_blocking_fd()?;
        command.stdin(Stdio::null()).stderr(sender.try_clone()?).stdout(sender);
        let confinement =
            Confinement { uid, group: self.accelerator.device_group(), namespace, entrance, open_files: OPEN_FILES, inherited };
        let mut child = spawn_confined(command, confinement)?;
        let opened = i32::try_from(child.id()).map_err(io::Error::other).and_then(ProcessIdentity::of).and_then(ProcessHandle::open);
        let process = match opened {
            Ok(process) => process,
            Err(error) => {
                // Nobody could watch it, so nobody may own it.
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let output = Output::default();
        tokio::spawn(output.clone().collect(receiver));
        Ok(QemuVm::watch(process, Some(child), directory, output, group))
    }
}

#[async_trait]
impl Engine for QemuEngine {
    fn identity(&self) -> &EngineIdentity {
        &self.identity
    }

    async fn boot(&self, mut spec: VmSpec, boot: Boot) -> Result<Arc<dyn Vm>, EngineError> {
        let group = spec.group.take();
        let (uid, namespace, directory, memory_mib) = (spec.uid, spec.namespace.clone(), spec.directory.clone(), spec.shape.memory_mib);
        let control = listen(&directory).map_err(EngineError::Start)?;
        // QEMU opens the memory file anew through its descriptor, as its own user.
        nix::unistd::fchown(&boot.memory, Some(uid.into()), None).map_err(|errno| EngineError::Start(errno.into()))?;
        let command = QemuCommand::new(&self.binary, self.accelerator, spec, control).boot(boot, &self.kernel_arguments(), memory_mib);
        Ok(Arc::new(self.start(command, uid, namespace, directory, group).map_err(EngineError::Start)?))
    }

    async fn restore(&self, mut spec: VmSpec, restore: Restore) -> Result<Arc<dyn Vm>, EngineError> {
        let group = spec.group.take();
        let (uid, namespace, directory, memory_mib) = (spec.uid, spec.namespace.clone(), spec.directory.clone(), spec.shape.memory_mib);
        let control = listen(&directory).map_err(EngineError::Start)?;
        let library = self.library.try_clone().map_err(EngineError::Start)?;
        let (command, state) = QemuCommand::new(&self.binary, self.accelerator, spec, control).restore(restore, library, memory_mib);
        let mut vm = self.start(command, uid, namespace, directory, group).map_err(EngineError::Start)?;
        vm.incoming = Mutex::new(Some(state));
        Ok(Arc::new(vm))
    }

    async fn adopt(&self, process: ProcessIdentity, directory: PathBuf) -> Result<Arc<dyn Vm>, EngineError> {
        let process = ProcessHandle::open(process).map_err(EngineError::Control)?;
        let group = Group::of_process(process.identity.pid);
        Ok(Arc::new(QemuVm::watch(process, None, directory, Output::default(), group)))
    }
}

/// Binds the control socket before QEMU starts, so that commands can be sent at once.
fn listen(directory: &Path) -> io::Result<OwnedFd> {
    let socket = directory.join(CONTROL_SOCKET);
    match std::fs::remove_file(&socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let directory = File::open(directory)?;
    Ok(UnixListener::bind(format!("/proc/self/fd/{}/{CONTROL_SOCKET}", directory.as_raw_fd()))?.into())
}

/// One QEMU process.
struct QemuVm {
    process: Arc<ProcessHandle>,
    directory: PathBuf,
    ended: watch::Receiver<bool>,
    output: Output,
    /// The descriptor that the state comes from, until it has been loaded.
    incoming: Mutex<Option<i32>>,
}

impl QemuVm {
    /// Follows the process to its end, and reaps it when it is our child.
    fn watch(process: ProcessHandle, child: Option<Child>, directory: PathBuf, output: Output, group: Option<Group>) -> Self {
        let process = Arc::new(process);
        let (tell, ended) = watch::channel(false);
        let watched = process.clone();
        tokio::spawn(async move {
            watched.ended().await;
            if let Some(mut child) = child
                && let Err(error) = child.wait()
            {
                tracing::warn!(%error, pid = watched.identity.pid, "a virtual machine process could not be reaped");
            }
            tell.send_replace(true);
            if let Some(group) = group {
                group.remove().await;
            }
        });
        Self { process, directory, ended, output, incoming: Mutex::new(None) }
    }

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

    async fn end(&self) -> String {
        let mut ended = self.ended.clone();
        // The sender lives in the task that watches the process: it never goes before it has told.
        let _ = ended.wait_for(|ended| *ended).await;
        self.output.text()
    }
}

fn ignore_shared_memory() -> (&'static str, serde_json::Value) {
    ("migrate-set-capabilities", json!({"capabilities": [{"capability": "x-ignore-shared", "state": true}]}))
}

#[async_trait]
impl Vm for QemuVm {
    fn process(&self) -> ProcessIdentity {
        self.process.identity
    }

    async fn run_restored(&self) -> Result<(), EngineError> {
        let state = self.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(state) = state else { return Ok(()) };
        tokio::select! {
            output = self.end() => Err(EngineError::Ended { output }),
            loaded = self.load(state) => loaded,
        }
    }

    async fn pause(&self) -> Result<(), EngineError> {
        self.connect().await?.execute("stop", json!({})).await.map(|_| ())
    }

    async fn resume(&self) -> Result<(), EngineError> {
        self.connect().await?.execute("cont", json!({})).await.map(|_| ())
    }

    async fn save_state(&self, to: File) -> Result<(), EngineError> {
        let mut control = self.connect().await?;
        let (capability, arguments) = ignore_shared_memory();
        control.execute(capability, arguments).await?;
        control.give(STATE_FD, to.as_fd()).await?;
        control.execute("migrate", json!({"uri": format!("fd:{STATE_FD}")})).await?;
        control.migration_ended().await
    }

    fn kill(&self) {
        self.process.kill();
    }

    async fn stop(&self) {
        self.process.kill();
        if tokio::time::timeout(ENDS_WITHIN, self.end()).await.is_err() {
            tracing::error!(pid = self.process.identity.pid, "a virtual machine process does not end after SIGKILL");
        }
    }

    async fn ended(&self) -> String {
        self.end().await
    }
}
