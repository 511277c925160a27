//! The MicroVMs that are not TERMINATED, and how to reach the task that owns each.
//!
//! Must never decide nor hold a record: a handle has what is fixed for life and a watch on what is not.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use emberbox_host::MachineId;
use emberbox_store::{MicrovmRecord, Phase, RunSettings, SteadyMillis};
use emberbox_wire::arn::ImageArn;
use emberbox_wire::ids::{AccountId, MicrovmId};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};

use super::state::Conflict;
use crate::events::Cause;

/// Commands waiting for one MicroVM's task. More come only from a storm of wakes, which then wait their turn.
pub(crate) const COMMAND_QUEUE: usize = 64;
/// How long a request waits for its intent to be recorded: a write to the local disk, behind a queue of others.
const INTENT_DEADLINE: Duration = Duration::from_secs(30);

/// What others may see of a MicroVM.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    pub(crate) phase: Phase,
    pub(crate) since: SteadyMillis,
    pub(crate) reason: Option<String>,
    /// Wakes that failed so far: a waiter whose count moved has its answer.
    pub(crate) failed_wakes: u32,
    pub(crate) timings: Arc<Value>,
}

/// What is asked of a MicroVM's task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Suspend,
    /// Whatever it is doing.
    SuspendFor {
        cause: Cause,
        reason: String,
    },
    /// By policy: only if there has been no traffic since.
    SuspendIdle {
        idle_since: SteadyMillis,
        cause: Cause,
        reason: String,
    },
    Resume,
    /// For a request that came through its endpoint.
    Wake,
    Terminate,
    /// By policy.
    End {
        cause: Cause,
        reason: String,
    },
    Exited {
        reason: String,
    },
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the MicroVM's state does not allow it")]
    Refused(Conflict),
    /// The intent could not be written; nothing has changed.
    #[error("the intent could not be recorded")]
    NotRecorded,
    /// As above, because the disk is full.
    #[error("the host's disk is full")]
    DiskFull,
    /// A wake takes memory, and there is not enough; nothing has changed.
    #[error("there is not enough memory to resume it now")]
    NoRoom,
    /// The task has ended: the MicroVM is TERMINATED, or the daemon is stopping.
    #[error("the MicroVM's task has ended")]
    Gone,
}

#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) request: Request,
    pub(crate) reply: Option<oneshot::Sender<Result<(), RequestError>>>,
}

/// A living MicroVM as others hold it.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    pub(crate) id: MicrovmId,
    pub(crate) account: AccountId,
    pub(crate) image: ImageArn,
    pub(crate) address: Option<Ipv4Addr>,
    pub(crate) endpoint: String,
    pub(crate) settings: Arc<RunSettings>,
    pub(crate) started: SteadyMillis,
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
    touched: Arc<AtomicI64>,
    busy: Arc<AtomicI64>,
}

impl Handle {
    pub(crate) fn new(
        record: &MicrovmRecord,
        commands: mpsc::Sender<Command>,
        view: watch::Receiver<View>,
        touched: Arc<AtomicI64>,
    ) -> Self {
        Self {
            id: record.id,
            account: record.account.clone(),
            image: record.image_arn.clone(),
            address: record.address,
            endpoint: record.endpoint.to_string(),
            settings: Arc::new(record.settings.clone()),
            started: record.steady.started,
            commands,
            view,
            touched,
            busy: Arc::new(AtomicI64::new(0)),
        }
    }

    pub(crate) fn machine(&self) -> MachineId {
        MachineId(self.id.0)
    }

    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// There has been traffic.
    pub(crate) fn touch(&self, now: SteadyMillis) {
        self.touched.fetch_max(now.0, Ordering::Relaxed);
    }

    pub(crate) fn touched(&self) -> SteadyMillis {
        SteadyMillis(self.touched.load(Ordering::Relaxed))
    }

    /// It has been seen computing.
    pub(crate) fn note_busy(&self, now: SteadyMillis) {
        self.busy.fetch_max(now.0, Ordering::Relaxed);
    }

    pub(crate) fn busy(&self) -> SteadyMillis {
        SteadyMillis(self.busy.load(Ordering::Relaxed))
    }

    /// Asks, and returns when the intent is recorded or refused; the work goes on.
    pub(crate) async fn ask(&self, request: Request) -> Result<(), RequestError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(Command { request, reply: Some(reply) }).await.map_err(|_| RequestError::Gone)?;
            answer.await.map_err(|_| RequestError::Gone)?
        };
        tokio::time::timeout(INTENT_DEADLINE, asked).await.unwrap_or(Err(RequestError::NotRecorded))
    }

    /// Asks without waiting. A full queue drops the request: its sender, a reconciler, comes again.
    pub(crate) fn tell(&self, request: Request) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.commands.try_send(Command { request, reply: None }) {
            tracing::warn!(microvm = %self.id, "too many requests wait for this MicroVM");
        }
    }
}

#[derive(Debug, Default)]
struct Index {
    by_id: HashMap<MicrovmId, Handle>,
    by_address: HashMap<Ipv4Addr, MicrovmId>,
    by_label: HashMap<String, MicrovmId>,
}

#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<Index>);

impl Registry {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.lock().expect("no holder of this lock can panic")
    }

    pub(crate) fn insert(&self, handle: Handle) {
        let mut index = self.index();
        if let Some(address) = handle.address {
            index.by_address.insert(address, handle.id);
        }
        index.by_label.insert(handle.endpoint.clone(), handle.id);
        index.by_id.insert(handle.id, handle);
    }

    pub(crate) fn remove(&self, id: MicrovmId) {
        let mut index = self.index();
        let Some(handle) = index.by_id.remove(&id) else { return };
        index.by_label.remove(&handle.endpoint);
        // The address may be another's by now: it is free from the moment TERMINATED is written.
        if let Some(address) = handle.address.filter(|address| index.by_address.get(address) == Some(&id)) {
            index.by_address.remove(&address);
        }
    }

    pub(crate) fn get(&self, id: MicrovmId) -> Option<Handle> {
        self.index().by_id.get(&id).cloned()
    }

    pub(crate) fn by_address(&self, address: Ipv4Addr) -> Option<MicrovmId> {
        self.index().by_address.get(&address).copied()
    }

    pub(crate) fn by_label(&self, label: &str) -> Option<MicrovmId> {
        self.index().by_label.get(label).copied()
    }

    pub(crate) fn all(&self) -> Vec<Handle> {
        self.index().by_id.values().cloned().collect()
    }
}
