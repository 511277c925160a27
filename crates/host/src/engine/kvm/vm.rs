//! A machine in its monitor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use emberbox_agent_protocol::GUEST_MAC;
use emberbox_vmm::control::{self, DiskSpec, MachineSpec, Request};
use tokio::net::UnixStream;

use super::client;
use super::monitor::Monitor;
use crate::engine::process::VmProcess;
use crate::engine::{Boot, DiskFormat, EngineError, Restore, Vm, VmSpec, WorkingSet, channel};
use crate::sys::namespace::NetworkNamespace;
use crate::sys::pidfd::ProcessIdentity;
use crate::{ProcessEnd, StepTimings};

const CONTROL_SOCKET: &str = "control.sock";

pub(super) struct KvmVm {
    process: VmProcess,
    directory: PathBuf,
    /// The monitor's own socket, until it has its machine: from then on there is a connection for each errand, as a restarted daemon makes them.
    empty: Mutex<Option<UnixStream>>,
    /// What [`Vm::run_restored`] will send.
    set_aside: Mutex<Option<Order>>,
}

/// A request with all its descriptors.
struct Order {
    name: &'static str,
    request: Request,
    fds: Vec<OwnedFd>,
}

/// A machine has as many as the monitor takes, or is refused by it.
pub(super) fn vcpus(spec: &VmSpec) -> u8 {
    u8::try_from(spec.shape.vcpus).unwrap_or(u8::MAX)
}

impl KvmVm {
    pub(super) fn empty(monitor: Monitor, directory: PathBuf) -> Self {
        Self { process: monitor.process, directory, empty: Mutex::new(Some(monitor.control)), set_aside: Mutex::new(None) }
    }

    pub(super) fn adopted(process: VmProcess, directory: PathBuf) -> Self {
        Self { process, directory, empty: Mutex::new(None), set_aside: Mutex::new(None) }
    }

    pub(super) async fn boot(&self, spec: VmSpec, boot: Boot, command_line: String) -> Result<(), EngineError> {
        let (machine, mut fds) = self.machine(spec)?;
        fds.extend([boot.kernel.into(), boot.initramfs.into(), boot.memory.into()]);
        self.give(Order { name: "boot", request: Request::Boot { machine, command_line }, fds }).await.map(|_| ())
    }

    /// Keeps the restore until the process is on record.
    pub(super) fn set_aside(&self, spec: VmSpec, restore: Restore) -> Result<(), EngineError> {
        let (machine, mut fds) = self.machine(spec)?;
        fds.extend([restore.base.into(), restore.state.into()]);
        let layered = restore.layer.is_some();
        fds.extend(restore.layer.into_iter().flat_map(|(pages, runs)| [pages.into(), runs.into()]));
        let working_set = match restore.working_set {
            WorkingSet::Unknown => control::WorkingSet::Unknown,
            WorkingSet::Recorded => control::WorkingSet::Recorded,
            WorkingSet::Known(list) => {
                fds.push(list.into());
                control::WorkingSet::Known
            }
        };
        *lock(&self.set_aside) = Some(Order { name: "restore", request: Request::Restore { machine, layered, working_set }, fds });
        Ok(())
    }

    /// What a machine consists of, and the descriptors that go with it, in the order the monitor expects.
    fn machine(&self, mut spec: VmSpec) -> Result<(MachineSpec, Vec<OwnedFd>), EngineError> {
        self.process.enter_group(spec.group.take()).map_err(EngineError::Start)?;
        let listener = channel::listen(&self.directory, CONTROL_SOCKET).map_err(EngineError::Start)?;
        let vcpus = vcpus(&spec);
        let mut fds = vec![listener, spec.tap];
        let mut disks = Vec::with_capacity(spec.disks.len());
        for disk in spec.disks {
            let layers = disk.layers.iter().map(|layer| format(layer.format)).collect();
            disks.push(DiskSpec { serial: disk.serial.to_owned(), read_only: disk.read_only, layers });
            fds.extend(disk.layers.into_iter().map(|layer| OwnedFd::from(layer.file)));
        }
        Ok((MachineSpec { vcpus, memory_mib: spec.shape.memory_mib, mac: GUEST_MAC, disks }, fds))
    }

    /// Gives the monitor its machine, which runs when this returns.
    async fn give(&self, order: Order) -> Result<StepTimings, EngineError> {
        let empty = lock(&self.empty).take();
        let Some(control) = empty else { return Err(EngineError::Control(io::Error::other("the monitor has a machine already"))) };
        let fds: Vec<BorrowedFd<'_>> = order.fds.iter().map(AsFd::as_fd).collect();
        tokio::select! {
            end = self.process.end() => Err(EngineError::Ended(end)),
            given = self.process.explained(client::ask(&control, order.name, order.request, &fds)) => given,
        }
    }

    async fn ask(&self, command: &'static str, request: Request, fds: &[BorrowedFd<'_>]) -> Result<(), EngineError> {
        let asked = async {
            let control = channel::connect(&self.directory, CONTROL_SOCKET).await.map_err(EngineError::Control)?;
            client::ask(&control, command, request, fds).await
        };
        self.process.explained(asked).await.map(|_| ())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn format(format: DiskFormat) -> emberbox_vmm::DiskFormat {
    match format {
        DiskFormat::Raw => emberbox_vmm::DiskFormat::Raw,
        DiskFormat::Qcow2 => emberbox_vmm::DiskFormat::Qcow2,
    }
}

#[async_trait]
impl Vm for KvmVm {
    fn process(&self) -> ProcessIdentity {
        self.process.identity()
    }

    /// The monitor is in a namespace of its own, with nothing in it: the cell is its tap's.
    fn namespace(&self) -> io::Result<NetworkNamespace> {
        NetworkNamespace::of_tap(&self.process.tap()?)
    }

    async fn run_restored(&self) -> Result<StepTimings, EngineError> {
        let order = lock(&self.set_aside).take();
        match order {
            Some(order) => self.give(order).await,
            None => Ok(StepTimings::default()),
        }
    }

    async fn pause(&self) -> Result<(), EngineError> {
        self.ask("pause", Request::Pause, &[]).await
    }

    async fn resume(&self) -> Result<(), EngineError> {
        self.ask("resume", Request::Resume, &[]).await
    }

    async fn save_state(&self, to: File) -> Result<(), EngineError> {
        self.ask("save_state", Request::SaveState, &[to.as_fd()]).await
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
