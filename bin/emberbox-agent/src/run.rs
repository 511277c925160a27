//! One command of a builder: its output as it comes, then its exit code.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Error, Result};
use emberbox_agent_protocol::{Command, Disk, LogStream, Reply};
use nix::sched::{CloneFlags, setns};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::agent::Agent;
use crate::cgroup::Cgroup;
use crate::link::Link;
use crate::output::{self, Output};
use crate::reaper::{ExitCode, exited};
use crate::spawn::{self, Birth, DEFAULT_PATH};
use crate::{disks, logs, server};

/// Lines between the readers and the host; a host that reads slowly slows the command.
const LINES_IN_FLIGHT: usize = 64;
/// Output that was written before the end. A daemon left behind may hold the pipes open for ever.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// A command that was started.
struct Running {
    cgroup: Cgroup,
    exit: ExitCode,
    lines: mpsc::Receiver<(LogStream, String)>,
}

pub(crate) async fn run(agent: &Rc<Agent>, mut link: Link, command: Command) {
    let deadline = Instant::now() + Duration::from_millis(command.timeout_ms);
    let running = tokio::select! {
        running = start(agent, command) => running,
        () = link.hung_up() => return,
    };
    match running {
        Ok(running) => follow(running, link, deadline).await,
        Err(error) => server::finish(link, server::failed(&error)).await,
    }
}

async fn start(agent: &Rc<Agent>, command: Command) -> Result<Running> {
    let namespace = agent.builders.namespace(&command.root_disk).await?;
    let mut mounts = Vec::new();
    for (target, disk) in &command.mounts {
        mounts.push((disks::device(&disk.serial).await?, disk.clone(), PathBuf::from(target)));
    }
    let (stdout, stdout_end) = output::open()?;
    let (stderr, stderr_end) = output::open()?;
    let cgroup = Cgroup::create(&format!("run-{}", agent.builders.next_run()))?;
    let birth = Birth { namespaces: CloneFlags::empty(), cgroup: &cgroup, stdout: stdout_end, stderr: stderr_end };
    let (_, exit) = spawn::spawn(&agent.reaper, birth, || become_command(&namespace, &mounts, &command)).await?;
    let (sender, lines) = mpsc::channel(LINES_IN_FLIGHT);
    tokio::task::spawn_local(read(stdout, LogStream::Stdout, sender.clone()));
    tokio::task::spawn_local(read(stderr, LogStream::Stderr, sender));
    Ok(Running { cgroup, exit, lines })
}

async fn read(mut output: Output, stream: LogStream, lines: mpsc::Sender<(LogStream, String)>) {
    while let Some(batch) = output.next_lines().await {
        for line in batch {
            if lines.send((stream, line)).await.is_err() {
                return;
            }
        }
    }
}

/// Passes the output on until the command ends, its time is over or the host hangs up.
async fn follow(mut running: Running, link: Link, deadline: Instant) {
    // Whatever ends this function, the abort of its task included, ends the command.
    let guard = KillOnDrop(&running.cgroup);
    let mut sender = Sender { link, sequence: 0 };
    let mut batch = Vec::new();
    let code = loop {
        tokio::select! {
            biased;
            1.. = running.lines.recv_many(&mut batch, LINES_IN_FLIGHT) => if !sender.send(&mut batch).await { return },
            code = exited(Some(running.exit.clone())) => break code,
            () = sender.link.hung_up() => return,
            () = sleep_until(deadline) => {
                let _ = running.cgroup.kill();
                batch.push((LogStream::Stderr, "emberbox: the command ran longer than it may and was killed".to_owned()));
                sender.send(&mut batch).await;
                break exited(Some(running.exit.clone())).await;
            }
        }
    };
    while let Ok(1..) = timeout(LAST_OUTPUT, running.lines.recv_many(&mut batch, LINES_IN_FLIGHT)).await {
        if !sender.send(&mut batch).await {
            return;
        }
    }
    guard.disarm();
    running.cgroup.remove();
    server::finish(sender.link, Reply::Exited { code }).await;
}

/// Numbers the lines of one command.
struct Sender {
    link: Link,
    sequence: u64,
}

impl Sender {
    /// Sends and empties `batch`; false when the host is gone.
    async fn send(&mut self, batch: &mut Vec<(LogStream, String)>) -> bool {
        let first = self.sequence + 1;
        self.sequence += batch.len() as u64;
        let lines = (first..).zip(batch.drain(..)).map(|(sequence, (stream, text))| logs::line(sequence, stream, text));
        self.link.send_all(lines.map(Reply::Log)).await.is_ok()
    }
}

struct KillOnDrop<'a>(&'a Cgroup);

impl KillOnDrop<'_> {
    /// For a command that ended by itself: what it left running, such as a mounted FUSE file system's server, may be needed by the next.
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl Drop for KillOnDrop<'_> {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

/// In the child: enters the builder and becomes the command.
fn become_command(namespace: &File, mounts: &[(PathBuf, Disk, PathBuf)], command: &Command) -> Error {
    match prepare(namespace, mounts, command) {
        Ok(environment) => spawn::exec(&command.argv, &environment),
        Err(error) => error,
    }
}

fn prepare(namespace: &File, mounts: &[(PathBuf, Disk, PathBuf)], command: &Command) -> Result<BTreeMap<String, String>> {
    setns(namespace, CloneFlags::CLONE_NEWNS).context("entering the builder")?;
    for (device, disk, target) in mounts {
        disks::mount_at(device, disk, target)?;
    }
    for (path, content) in &command.files {
        write_file(Path::new(path), content)?;
    }
    let directory = if command.working_directory.is_empty() { "/" } else { &command.working_directory };
    nix::unistd::chdir(directory).with_context(|| format!("entering {directory}"))?;
    let mut environment = command.environment.clone();
    environment.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    environment.entry("HOME".into()).or_insert_with(|| "/root".into());
    Ok(environment)
}

fn write_file(path: &Path, content: &str) -> Result<()> {
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(content.as_bytes())
    };
    write().with_context(|| format!("writing {}", path.display()))
}
