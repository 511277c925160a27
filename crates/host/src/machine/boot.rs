//! A fresh machine: booted from the managed base with RAM in a file, up to the agent's first answer.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use emberbox_agent_protocol::Request;
use tokio::time::{sleep, timeout};

use crate::agent::{AgentError, AgentLink};
use crate::engine::{Boot, Vm, VmDisk, VmSpec};
use crate::local::LocalHost;
use crate::network::Cell;
use crate::{HostError, MachineShape, pressure};

/// Two to three seconds on an idle host without hardware virtualization; this is for a busy one.
const BOOTED_WITHIN: Duration = Duration::from_secs(90);
/// One attempt: a connection that the guest was not ready for is made anew rather than waiting for TCP to send again.
const ATTEMPT: Duration = Duration::from_millis(500);
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(25);

/// A machine that is no MicroVM: it builds or is being captured, and ends with the operation that booted it.
pub(super) struct Booted {
    pub vm: Arc<dyn Vm>,
    pub agent: AgentLink,
    /// Kept for as long as the machine runs.
    cell: Cell,
}

pub(super) struct BootSpec {
    pub shape: MachineShape,
    pub disks: Vec<VmDisk>,
    /// A new file; it holds the guest's RAM.
    pub memory: PathBuf,
    pub directory: PathBuf,
}

pub(super) async fn boot(host: &LocalHost, spec: BootSpec) -> Result<Booted, HostError> {
    let failed = HostError::internal;
    pressure::descriptors_for_a_machine()?;
    let boot = Boot {
        kernel: host.base.kernel().map_err(failed("open the guest's kernel"))?,
        initramfs: host.base.initramfs().map_err(failed("open the guest's initramfs"))?,
        memory: create_memory(&spec.memory, spec.shape).map_err(failed("make the guest's memory"))?,
    };
    let mut cell = host.cells.take().await?;
    let tap = cell.tap.take().ok_or_else(|| failed("use a cell")(std::io::Error::other("its tap is in use")))?;
    let uid = host.cells.user_of(&cell);
    let group = host.group(uid, spec.shape).map_err(failed("limit a machine"))?;
    let namespace = cell.namespace.clone();
    let vm_spec = VmSpec { shape: spec.shape, uid, namespace, tap, disks: spec.disks, directory: spec.directory, group };
    let vm = host.engine.boot(vm_spec, boot).await?;
    let agent = host.agent(&cell, &vm);
    let booted = Booted { vm, agent, cell };
    match booted.answers().await {
        Ok(()) => Ok(booted),
        Err(error) => {
            booted.end().await;
            Err(error)
        }
    }
}

/// An operation that is given up takes its machine with it.
impl Drop for Booted {
    fn drop(&mut self) {
        self.vm.kill();
    }
}

impl Booted {
    /// Ends the process and takes its cell away.
    pub(super) async fn end(&self) {
        self.vm.stop().await;
        self.cell.dismantle();
    }

    /// Waits for the agent.
    async fn answers(&self) -> Result<(), HostError> {
        let asked = async {
            loop {
                match self.agent.command(Request::Ping, ATTEMPT).await {
                    Ok(()) => break Ok(()),
                    Err(error @ AgentError::Ended(_)) => break Err(error),
                    Err(_) => sleep(BETWEEN_ATTEMPTS).await,
                }
            }
        };
        Ok(timeout(BOOTED_WITHIN, asked).await.unwrap_or(Err(AgentError::TimedOut(BOOTED_WITHIN)))?)
    }
}

fn create_memory(path: &Path, shape: MachineShape) -> std::io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
    file.set_len(u64::from(shape.memory_mib) << 20)?;
    Ok(file)
}
