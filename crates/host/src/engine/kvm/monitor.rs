//! A monitor process without a machine.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::Command;

use emberbox_vmm::control::Request;
use tokio::net::UnixStream;

use super::client;
use super::probe::ProbeError;
use crate::engine::EngineError;
use crate::engine::process::VmProcess;
use crate::sys::spawn::spawn_to_be_jailed;

/// Beside the daemon's own program.
const PROGRAM: &str = "emberbox-vmm";

pub(super) struct MonitorProgram {
    path: PathBuf,
    /// Whether its disks may have rings.
    io_uring: bool,
}

/// A process that has confined itself, or is about to.
pub(super) struct Monitor {
    pub process: VmProcess,
    pub control: UnixStream,
}

impl MonitorProgram {
    pub(super) fn find(configured: Option<PathBuf>, io_uring: bool) -> Result<Self, ProbeError> {
        let beside = || std::env::current_exe().map(|daemon| daemon.with_file_name(PROGRAM)).unwrap_or_else(|_| PROGRAM.into());
        let path = configured.unwrap_or_else(beside);
        if path.is_file() { Ok(Self { path, io_uring }) } else { Err(ProbeError::NoMonitor(path)) }
    }

    /// Starts a monitor that will become `uid`.
    pub(super) fn start(&self, uid: u32) -> io::Result<Monitor> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
        let mut command = Command::new(&self.path);
        command.env_clear().current_dir("/");
        let numbers = [("--control", theirs.as_raw_fd()), ("--kvm", kvm.as_raw_fd())];
        for (name, number) in numbers {
            command.args([name, &number.to_string()]);
        }
        command.args(["--uid", &uid.to_string(), "--io-uring", if self.io_uring { "1" } else { "0" }]);
        let inherited: Vec<OwnedFd> = vec![theirs.into(), kvm.into()];
        let process = VmProcess::start(command, |command| spawn_to_be_jailed(command, &inherited))?;
        Ok(Monitor { process, control: UnixStream::from_std(ours)? })
    }
}

impl Monitor {
    pub(super) fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// A monitor without a machine is not needed.
    pub(super) fn end(self) {
        self.process.kill();
    }

    /// Has it make what can be made before its machine is known.
    pub(super) async fn prepare(&self, vcpus: u8) -> Result<(), EngineError> {
        self.process.explained(client::ask(&self.control, "prepare", Request::Prepare { vcpus }, &[])).await.map(|_| ())
    }
}
