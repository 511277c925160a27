//! The application as a container: its own mounts, processes, IPC objects and cgroup; the guest's network and host name.
//!
//! The namespaces are not the wall between tenants, the machine is. They give the application the world an OCI image expects, and
//! keep it from freezing or killing the agent.

mod capabilities;
mod environment;
pub(crate) mod filesystem;
mod identity;
mod process;
mod user;

use std::cell::Cell;
use std::rc::Rc;

use anyhow::{Context, Result, bail};
use emberbox_agent_protocol::{Application, Capabilities, LogStream};
use nix::sched::CloneFlags;
use nix::unistd::{Pid, fchown};
use tokio::sync::Notify;

use crate::agent::{Agent, Slot};
use crate::cgroup::Cgroup;
use crate::logs::LogBuffer;
use crate::mounts::Root;
use crate::output::{self, Backlog, Output};
use crate::reaper::{ExitCode, exited};
use crate::spawn::{self, Birth};
use crate::{console, disks, modules};

use identity::Files;
use process::Plan;

/// The application once it was started.
pub(crate) struct Container {
    pub(crate) cgroup: Cgroup,
    pub(crate) root: Root,
    pub(crate) files: Files,
    pid: Pid,
    exit: ExitCode,
    backlogs: [Backlog; 2],
    readers: Rc<Readers>,
}

/// The tasks that read the application's output.
#[derive(Default)]
struct Readers {
    running: Cell<usize>,
    ended: Notify,
}

impl Container {
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn exit(&self) -> ExitCode {
        self.exit.clone()
    }

    pub(crate) fn has_exited(&self) -> bool {
        self.exit.borrow().is_some()
    }

    pub(crate) async fn exited(&self) -> i32 {
        exited(Some(self.exit())).await
    }

    /// Whether the pipes are empty.
    pub(crate) fn output_is_read(&self) -> bool {
        self.backlogs.iter().all(Backlog::is_empty)
    }

    /// Returns when the last writer of the output is gone and all of it is in the ring.
    pub(crate) async fn output_ended(&self) {
        while self.readers.running.get() > 0 {
            self.readers.ended.notified().await;
        }
    }
}

/// Starts the application; there can be one.
pub(crate) async fn start(agent: &Rc<Agent>, application: Application) -> Result<()> {
    match agent.application.replace(Slot::Starting) {
        Slot::Empty => {}
        taken => {
            agent.application.replace(taken);
            bail!("the application was started already");
        }
    }
    match create(agent, application).await {
        Ok(container) => {
            let container = Rc::new(container);
            agent.application.replace(Slot::Filled(container.clone()));
            tokio::task::spawn_local(report_end(container));
            Ok(())
        }
        Err(error) => {
            agent.application.replace(Slot::Empty);
            Err(error)
        }
    }
}

async fn create(agent: &Rc<Agent>, application: Application) -> Result<Container> {
    match application.capabilities {
        Capabilities::Restricted => modules::forget_extra(),
        Capabilities::All => {
            modules::load_extra();
            Cgroup::delegate_controllers();
        }
    }
    let root_path = disks::mount_root(&application.root_disk).await?;
    let root = Root::open(&root_path)?;
    let files = Files::write(&application, &root)?;
    let user = user::resolve(&application.user, &root)?;
    nix::unistd::sethostname(&application.host_name).context("setting the host name")?;
    let cgroup = Cgroup::create("app")?;
    let (stdout, stdout_end) = output::open()?;
    let (stderr, stderr_end) = output::open()?;
    for end in [&stdout_end, &stderr_end] {
        // So that opening /dev/stdout works for every user.
        fchown(end, Some(user.uid), Some(user.gid)).context("giving the output to the user")?;
    }
    let backlogs = [stdout.backlog(), stderr.backlog()];
    let namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    let birth = Birth { namespaces, cgroup: &cgroup, stdout: stdout_end, stderr: stderr_end };
    let environment = environment::complete(&application, &user);
    let plan = Plan { root: &root_path, files: &files, user: &user, environment: &environment, application: &application };
    let (pid, exit) = spawn::spawn(&agent.reaper, birth, || process::become_application(&plan)).await?;
    let readers = Rc::new(Readers::default());
    for (output, stream) in [(stdout, LogStream::Stdout), (stderr, LogStream::Stderr)] {
        readers.running.set(readers.running.get() + 1);
        tokio::task::spawn_local(read(output, stream, agent.logs.clone(), readers.clone()));
    }
    console::say("application started");
    Ok(Container { cgroup, root, files, pid, exit, backlogs, readers })
}

async fn read(mut output: Output, stream: LogStream, logs: Rc<LogBuffer>, readers: Rc<Readers>) {
    while let Some(lines) = output.next_lines().await {
        for line in lines {
            logs.push(stream, line);
        }
    }
    readers.running.set(readers.running.get() - 1);
    readers.ended.notify_waiters();
}

async fn report_end(container: Rc<Container>) {
    let code = container.exited().await;
    console::say(&format!("application exited with code {code}"));
}
