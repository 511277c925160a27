//! The one place that waits for processes: as PID 1 the agent inherits every orphan, and an exit code must reach its waiter.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// An exit code once there is one; 128 + signal number for a process that was killed.
pub(crate) type ExitCode = watch::Receiver<Option<i32>>;

#[derive(Clone, Default)]
pub(crate) struct Reaper {
    waiters: Rc<RefCell<HashMap<Pid, watch::Sender<Option<i32>>>>>,
}

impl Reaper {
    /// Starts reaping. Must come before the first child.
    pub(crate) fn start() -> Result<Self> {
        let reaper = Self::default();
        let children = signal(SignalKind::child()).context("listening for SIGCHLD")?;
        tokio::task::spawn_local(reaper.clone().run(children));
        Ok(reaper)
    }

    /// Registers a child. No `await` may lie between its birth and this call.
    pub(crate) fn watch(&self, pid: Pid) -> ExitCode {
        let (sender, receiver) = watch::channel(None);
        self.waiters.borrow_mut().insert(pid, sender);
        receiver
    }

    async fn run(self, mut children: Signal) {
        loop {
            self.reap_all();
            if children.recv().await.is_none() {
                return;
            }
        }
    }

    fn reap_all(&self) {
        loop {
            let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            if let Some(waiter) = self.waiters.borrow_mut().remove(&pid) {
                let _ = waiter.send(Some(code));
            }
        }
    }
}

/// Waits for an exit code; for ever where there is no process to wait for.
pub(crate) async fn exited(process: Option<ExitCode>) -> i32 {
    let Some(mut process) = process else { return std::future::pending().await };
    // The sender goes only after it has sent.
    let code = process.wait_for(Option::is_some).await.ok().and_then(|code| *code);
    code.unwrap_or(-1)
}
