//! A virtual machine's process, followed to its end. It may be a child of this daemon or of one before it.

use std::io;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::watch;

use super::output::Output;
use crate::cgroup::Group;
use crate::sys::pidfd::{ProcessHandle, ProcessIdentity};

/// SIGKILL cannot be refused; a process in an uninterruptible wait may take a while.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

pub(super) struct VmProcess {
    process: Arc<ProcessHandle>,
    ended: watch::Receiver<bool>,
    output: Output,
    /// The group it lives in, removed when it has ended.
    group: Arc<Mutex<Option<Group>>>,
}

impl VmProcess {
    /// Starts `command` by `spawn`, with its output kept.
    pub(super) fn start(mut command: Command, spawn: impl FnOnce(Command) -> io::Result<Child>) -> io::Result<Self> {
        let (sender, receiver) = pipe::pipe()?;
        let sender = sender.into_blocking_fd()?;
        command.stdin(Stdio::null()).stderr(sender.try_clone()?).stdout(sender);
        let mut child = spawn(command)?;
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
        Ok(Self::watch(process, Some(child), output))
    }

    /// Takes over a process that another daemon started. What it prints is lost.
    pub(super) fn adopt(identity: ProcessIdentity) -> io::Result<Self> {
        let process = Self::watch(ProcessHandle::open(identity)?, None, Output::default());
        process.keep_group(Group::of_process(identity.pid));
        Ok(process)
    }

    /// Follows the process to its end, and reaps it when it is our child.
    fn watch(process: ProcessHandle, child: Option<Child>, output: Output) -> Self {
        let process = Arc::new(process);
        let (tell, ended) = watch::channel(false);
        let group: Arc<Mutex<Option<Group>>> = Arc::default();
        let (watched, left) = (process.clone(), group.clone());
        tokio::spawn(async move {
            watched.ended().await;
            if let Some(mut child) = child
                && let Err(error) = child.wait()
            {
                tracing::warn!(%error, pid = watched.identity.pid, "a virtual machine process could not be reaped");
            }
            tell.send_replace(true);
            let group = left.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(group) = group {
                group.remove().await;
            }
        });
        Self { process, ended, output, group }
    }

    /// Takes charge of the group that the process lives in.
    pub(super) fn keep_group(&self, group: Option<Group>) {
        *self.group.lock().unwrap_or_else(PoisonError::into_inner) = group;
    }

    /// Moves the process into its group, which it could not be started in.
    pub(super) fn enter_group(&self, group: Option<Group>) -> io::Result<()> {
        if let Some(group) = &group {
            group.admit(self.process.identity.pid)?;
        }
        self.keep_group(group);
        Ok(())
    }

    pub(super) fn identity(&self) -> ProcessIdentity {
        self.process.identity
    }

    pub(super) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    /// Ends the process without waiting.
    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// Ends the process and waits for its end.
    pub(super) async fn stop(&self) {
        self.process.kill();
        if tokio::time::timeout(ENDS_WITHIN, self.end()).await.is_err() {
            tracing::error!(pid = self.process.identity.pid, "a virtual machine process does not end after SIGKILL");
        }
    }

    /// Resolves when the process has ended, with the last of what it printed.
    pub(super) async fn end(&self) -> String {
        let mut ended = self.ended.clone();
        // The sender lives in the task that watches the process: it never goes before it has told.
        let _ = ended.wait_for(|ended| *ended).await;
        self.output.text()
    }

    /// A copy of the descriptor of the process's tap, by which its cell is found.
    pub(super) fn tap(&self) -> io::Result<std::os::fd::OwnedFd> {
        let pid = self.process.identity.pid;
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
            let entry = entry?;
            let is_tap = std::fs::read_link(entry.path()).is_ok_and(|target| target.ends_with("net/tun"));
            if is_tap && let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                return self.process.copy_descriptor(number);
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "the process has no tap"))
    }
}
