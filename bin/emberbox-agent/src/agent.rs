//! What the agent knows: one thread's state, shared by the tasks of its connections. No borrow is held across an `await`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;

use tokio::task::JoinHandle;

use crate::builder::Builders;
use crate::container::Container;
use crate::logs::LogBuffer;
use crate::reaper::{ExitCode, Reaper};

pub(crate) struct Agent {
    pub(crate) reaper: Reaper,
    pub(crate) logs: Rc<LogBuffer>,
    pub(crate) connections: Connections,
    pub(crate) builders: Builders,
    pub(crate) application: RefCell<Slot>,
}

/// The one place for the application.
#[derive(Clone, Default)]
pub(crate) enum Slot {
    #[default]
    Empty,
    Starting,
    Filled(Rc<Container>),
}

impl Agent {
    pub(crate) fn new(reaper: Reaper) -> Rc<Self> {
        Rc::new(Self {
            reaper,
            logs: Rc::default(),
            connections: Connections::default(),
            builders: Builders::default(),
            application: RefCell::default(),
        })
    }

    /// The application, running or ended.
    pub(crate) fn container(&self) -> Option<Rc<Container>> {
        match &*self.application.borrow() {
            Slot::Filled(container) => Some(container.clone()),
            Slot::Empty | Slot::Starting => None,
        }
    }

    /// How the application's end will be known; `None` while none was started.
    pub(crate) fn application_exit(&self) -> Option<ExitCode> {
        self.container().map(|container| container.exit())
    }
}

/// Every open connection's task, so that those from before a snapshot can be ended.
#[derive(Default)]
pub(crate) struct Connections {
    last_id: Cell<u64>,
    tasks: RefCell<HashMap<u64, JoinHandle<()>>>,
}

/// Names a connection within this agent.
pub(crate) type ConnectionId = u64;

impl Connections {
    /// Runs the task that `serve` makes until it ends or [`Self::close_all_but`] ends it.
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(agent: &Rc<Agent>, serve: impl FnOnce(ConnectionId) -> F) {
        let connections = &agent.connections;
        let id = connections.last_id.get() + 1;
        connections.last_id.set(id);
        let work = serve(id);
        let agent_of_task = agent.clone();
        let task = tokio::task::spawn_local(async move {
            work.await;
            agent_of_task.connections.tasks.borrow_mut().remove(&id);
        });
        connections.tasks.borrow_mut().insert(id, task);
    }

    /// Ends every other connection and returns when they are closed.
    pub(crate) async fn close_all_but(&self, survivor: ConnectionId) {
        let others: Vec<JoinHandle<()>> = self.tasks.borrow_mut().extract_if(|id, _| *id != survivor).map(|(_, task)| task).collect();
        for task in others {
            task.abort();
            let _ = task.await;
        }
    }
}
