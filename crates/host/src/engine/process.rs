//! A virtual machine's process, followed to its end. It may be a child of this daemon or of one before it.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::EngineError;
use super::output::Output;
use crate::cgroup::{Group, MemoryKill};
use crate::sys::pidfd::{ProcessHandle, ProcessIdentity};
use crate::{EndCause, ProcessEnd};

/// SIGKILL cannot be refused; a process in an uninterruptible wait may take a while.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Between a hang-up and the end of the process that hung up.
const ENDS_AFTER_HANG_UP: Duration = Duration::from_secs(2);
/// Between the end of a process and that of its output: somebody who is just being started may hold a copy of the pipe for a moment.
const READ_WITHIN: Duration = Duration::from_secs(1);
const STANDARD_OUTPUT: i32 = 1;

pub(super) struct VmProcess {
    process: Arc<ProcessHandle>,
    ended: watch::Receiver<Option<ProcessEnd>>,
    group: Arc<Mutex<Charge>>,
}

/// The group that a process lives in, removed when it has ended.
enum Charge {
    Group(Option<Group>),
    /// The process has ended: a group that comes now is removed at once.
    Over,
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
        Ok(Self::watch(process, Some(child), Some(receiver)))
    }

    /// Takes over a process that another daemon started. What it printed while there was no daemon is lost.
    pub(super) fn adopt(identity: ProcessIdentity) -> io::Result<Self> {
        let process = ProcessHandle::open(identity)?;
        let output = output_of(&process)
            .inspect_err(|error| tracing::info!(%error, pid = identity.pid, "what an adopted process prints cannot be read"))
            .ok();
        let process = Self::watch(process, None, output);
        process.keep_group(Group::of_process(identity.pid));
        Ok(process)
    }

    /// Follows the process to its end, and reaps it when it is our child.
    fn watch(process: ProcessHandle, child: Option<Child>, from: Option<pipe::Receiver>) -> Self {
        let process = Arc::new(process);
        let (tell, ended) = watch::channel(None);
        let group = Arc::new(Mutex::new(Charge::Group(None)));
        let output = Output::default();
        let reading = from.map(|from| tokio::spawn(output.clone().collect(from)));
        let (watched, left) = (process.clone(), group.clone());
        tokio::spawn(async move {
            watched.ended().await;
            let status = child.and_then(|child| reap(child, watched.identity.pid));
            let group = match std::mem::replace(&mut *lock(&left), Charge::Over) {
                Charge::Group(group) => group,
                Charge::Over => None,
            };
            // Before the group goes, which alone knows.
            let cause = cause(status, group.as_ref().and_then(Group::memory_kill));
            read_to_the_end(reading).await;
            tell.send_replace(Some(ProcessEnd { cause, last_words: output.text() }));
            if let Some(group) = group {
                group.remove().await;
            }
        });
        Self { process, ended, group }
    }

    /// Takes charge of the group that the process lives in.
    pub(super) fn keep_group(&self, group: Option<Group>) {
        let mut charge = lock(&self.group);
        match (&*charge, group) {
            (Charge::Over, Some(late)) => {
                tokio::spawn(async move { late.remove().await });
            }
            (Charge::Over, None) => {}
            (Charge::Group(_), group) => *charge = Charge::Group(group),
        }
    }

    /// Moves the process into its group, which it could not be started in. One that has waited for its machine may be there.
    pub(super) fn enter_group(&self, group: Option<Group>) -> io::Result<()> {
        let is_there = |group: &Group| matches!(&*lock(&self.group), Charge::Group(Some(held)) if held.is(group));
        let entered = group.as_ref().filter(|group| !is_there(group)).map_or(Ok(()), |group| group.admit(self.process.identity.pid));
        self.keep_group(group);
        entered
    }

    /// Leaves the group to the process's successor.
    pub(super) fn leave_group(&self) {
        self.keep_group(None);
    }

    pub(super) fn identity(&self) -> ProcessIdentity {
        self.process.identity
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Ends the process without waiting.
    pub(super) fn kill(&self) {
        self.process.kill();
    }

    /// Ends the process and waits for its end.
    pub(super) async fn stop(&self) {
        self.process.kill();
        if timeout(ENDS_WITHIN, self.end()).await.is_err() {
            tracing::error!(pid = self.process.identity.pid, "a virtual machine process does not end after SIGKILL");
        }
    }

    /// Resolves when the process has ended.
    pub(super) async fn end(&self) -> ProcessEnd {
        let mut ended = self.ended.clone();
        // The sender lives in the task that watches the process: it never goes before it has told.
        let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        end.unwrap_or(ProcessEnd { cause: EndCause::Unknown, last_words: String::new() })
    }

    /// What talking to the process came to: see [`VmProcess::explain`].
    pub(super) async fn explained<T>(&self, work: impl Future<Output = Result<T, EngineError>> + Send) -> Result<T, EngineError> {
        match work.await {
            Err(error) => Err(self.explain(error).await),
            done => done,
        }
    }

    /// The process's end, where that is why its control socket failed: its last words say more than that it has hung up.
    pub(super) async fn explain(&self, error: EngineError) -> EngineError {
        match error {
            EngineError::Control(_) => timeout(ENDS_AFTER_HANG_UP, self.end()).await.map_or(error, EngineError::Ended),
            other => other,
        }
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

fn lock(charge: &Mutex<Charge>) -> std::sync::MutexGuard<'_, Charge> {
    charge.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pipe that a process of another daemon prints into: it is open for as long as the process holds its end, and can be read anew.
fn output_of(process: &ProcessHandle) -> io::Result<pipe::Receiver> {
    let written = process.copy_descriptor(STANDARD_OUTPUT)?;
    pipe::OpenOptions::new().open_receiver(format!("/proc/self/fd/{}", written.as_raw_fd()))
}

fn reap(mut child: Child, pid: i32) -> Option<ExitStatus> {
    child.wait().inspect_err(|error| tracing::warn!(%error, pid, "a virtual machine process could not be reaped")).ok()
}

async fn read_to_the_end(reading: Option<JoinHandle<()>>) {
    if let Some(mut reading) = reading
        && timeout(READ_WITHIN, &mut reading).await.is_err()
    {
        reading.abort();
    }
}

/// The kernel ends by SIGKILL; of a process that ended otherwise a neighbour in its group was meant.
fn cause(status: Option<ExitStatus>, memory: Option<MemoryKill>) -> EndCause {
    let seen = status.map(|status| (status.code(), status.signal()));
    match (seen, memory) {
        (None | Some((_, Some(libc::SIGKILL))), Some(MemoryKill::Limit)) => EndCause::MemoryLimit,
        (None | Some((_, Some(libc::SIGKILL))), Some(MemoryKill::Host)) => EndCause::HostMemory,
        (Some((Some(code), _)), _) => EndCause::Code(code),
        (Some((None, Some(signal))), _) => EndCause::Signal(signal),
        (Some((None, None)) | None, _) => EndCause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str) -> VmProcess {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        VmProcess::start(command, |mut command| command.spawn()).unwrap()
    }

    #[tokio::test]
    async fn last_words_are_whole_when_the_end_is_told() {
        for round in 0..20 {
            let end = shell(&format!("printf 'the guest\\033[31m stopped {round}' >&2; exit 3")).end().await;
            assert_eq!(end.cause, EndCause::Code(3));
            assert_eq!(
                end.to_string(),
                format!("its virtual machine process ended with code 3\nLast output:\nthe guest[31m stopped {round}")
            );
        }
        let flood = shell("yes console | head -c 3000000; echo last; kill -9 $$").end().await;
        assert_eq!(flood.cause, EndCause::Signal(libc::SIGKILL));
        assert!(flood.last_words.len() <= 16 * 1024 && flood.last_words.ends_with("console\nlast"));
        let shown = flood.to_string();
        assert!(shown.starts_with("its virtual machine process was ended by signal 9\nLast output:\n…") && shown.len() < 700, "{shown}");
    }

    #[tokio::test]
    async fn somebody_who_holds_the_output_delays_the_end_by_a_second_at_most() {
        let process = shell("sleep 30 & echo $!; exit 0");
        let end = timeout(Duration::from_secs(10), process.end()).await.unwrap();
        assert_eq!(end.cause, EndCause::Code(0));
        let left = ProcessIdentity::of(end.last_words.parse().unwrap()).and_then(ProcessHandle::open).unwrap();
        left.kill();
    }

    #[tokio::test]
    async fn an_adopted_process_is_heard_again() {
        let (reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "trap '' PIPE; echo lost; sleep 0.5; echo heard; kill -9 $$"]).stdout(writer).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // The daemon that it printed to is gone, and so is what it printed.
        drop((reader, command));
        let identity = ProcessIdentity::of(i32::try_from(child.id()).unwrap()).unwrap();
        let end = VmProcess::adopt(identity).unwrap().end().await;
        assert_eq!(end.cause, EndCause::Unknown, "nobody tells how another's child ended");
        assert!(end.last_words.ends_with("heard"), "{end:?}");
        child.wait().unwrap();
    }

    #[tokio::test]
    async fn a_hang_up_is_explained_by_the_end_behind_it() {
        let hang_up = || EngineError::Control(io::ErrorKind::UnexpectedEof.into());
        let explained = shell("echo 'a bug in the monitor'; exit 1").explain(hang_up()).await;
        assert_eq!(explained.to_string(), "its virtual machine process ended with code 1\nLast output:\na bug in the monitor");
        let lives = shell("sleep 30");
        assert!(matches!(lives.explain(hang_up()).await, EngineError::Control(_)), "a process that lives has not ended");
        lives.stop().await;
        assert!(lives.has_ended());
    }

    #[test]
    fn memory_is_the_cause_of_a_kill_and_of_nothing_else() {
        let (killed, crashed, left) =
            (ExitStatus::from_raw(libc::SIGKILL), ExitStatus::from_raw(libc::SIGSEGV), ExitStatus::from_raw(1 << 8));
        for (status, memory, expected) in [
            (Some(killed), Some(MemoryKill::Limit), EndCause::MemoryLimit),
            (Some(killed), Some(MemoryKill::Host), EndCause::HostMemory),
            (Some(killed), None, EndCause::Signal(libc::SIGKILL)),
            (Some(crashed), Some(MemoryKill::Limit), EndCause::Signal(libc::SIGSEGV)),
            (Some(left), Some(MemoryKill::Limit), EndCause::Code(1)),
            (None, Some(MemoryKill::Limit), EndCause::MemoryLimit),
            (None, None, EndCause::Unknown),
        ] {
            assert_eq!(cause(status, memory), expected, "{status:?} {memory:?}");
        }
    }
}
