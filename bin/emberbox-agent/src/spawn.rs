//! Starting a process: what every child does between its birth and its exec, and how its failures come back.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, execve, pipe2, setsid};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::cgroup::Cgroup;
use crate::reaper::{ExitCode, Reaper};
use crate::sys;

/// As container engines set it.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// From birth to exec: mounts, and reading the program from disk.
const SETUP: Duration = Duration::from_secs(60);
const MAX_FAILURE_BYTES: u64 = 4096;

/// Where a child is born and where its output goes.
pub(crate) struct Birth<'a> {
    pub(crate) namespaces: CloneFlags,
    pub(crate) cgroup: &'a Cgroup,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Starts a child that runs `become_program`, which returns only with the reason why it could not exec.
///
/// # Errors
/// That reason, or the child's silence for a minute; the child is dead then.
pub(crate) async fn spawn(reaper: &Reaper, birth: Birth<'_>, become_program: impl FnOnce() -> Error) -> Result<(Pid, ExitCode)> {
    let (failures, failure) = pipe2(OFlag::O_CLOEXEC).context("making a pipe")?;
    let cgroup = birth.cgroup.open()?;
    let pid = sys::clone::spawn(birth.namespaces, cgroup.as_fd(), || {
        let reason = match prepare(&birth) {
            Ok(()) => become_program(),
            Err(error) => error,
        };
        let _ = File::from(failure).write_all(format!("{reason:#}").as_bytes());
        127
    })
    .context("creating a process")?;
    let exit = reaper.watch(pid);
    drop((birth.stdout, birth.stderr));
    let reason = match timeout(SETUP, read_failure(failures)).await {
        Ok(reason) => reason?,
        Err(_) => "the process did not get to its program".to_owned(),
    };
    if reason.is_empty() {
        return Ok((pid, exit));
    }
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
    bail!(reason)
}

async fn read_failure(failures: OwnedFd) -> Result<String> {
    let mut text = Vec::new();
    let receiver = pipe::Receiver::from_owned_fd(failures).context("watching a pipe")?;
    receiver.take(MAX_FAILURE_BYTES).read_to_end(&mut text).await.context("reading a pipe")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// What all children have in common.
fn prepare(birth: &Birth<'_>) -> Result<()> {
    setsid().context("starting a session")?;
    umask(Mode::from_bits_truncate(0o022));
    let null = File::open("/dev/null").context("opening /dev/null")?;
    dup2_stdin(&null).context("setting stdin")?;
    dup2_stdout(&birth.stdout).context("setting stdout")?;
    dup2_stderr(&birth.stderr).context("setting stderr")?;
    sys::privilege::close_descriptors_on_exec().context("hiding descriptors")?;
    sys::privilege::reset_signals().context("resetting signals")?;
    fs::write("/proc/self/oom_score_adj", "0").context("resetting the OOM score")
}

/// Replaces the process by `argv`. Returns why it could not, in the words container engines use.
pub(crate) fn exec(argv: &[String], environment: &BTreeMap<String, String>) -> Error {
    match try_exec(argv, environment) {
        Err(error) => error,
    }
}

fn try_exec(argv: &[String], environment: &BTreeMap<String, String>) -> Result<std::convert::Infallible> {
    let name = argv.first().filter(|name| !name.is_empty()).context("no command specified")?;
    let path = environment.get("PATH").map_or(DEFAULT_PATH, String::as_str);
    let program = find_program(name, path, &|path| access(path)).map_err(|reason| anyhow!("exec: {name:?}: {reason}"))?;
    let words = |text: &String| CString::new(text.as_str()).context("a zero byte in an argument");
    let arguments: Vec<CString> = argv.iter().map(words).collect::<Result<_>>()?;
    let variables: Vec<CString> = environment.iter().map(|(name, value)| words(&format!("{name}={value}"))).collect::<Result<_>>()?;
    execve(&words(&program)?, &arguments, &variables).map_err(|error| match error {
        Errno::ENOEXEC => anyhow!("exec {program}: exec format error"),
        Errno::ENOENT => anyhow!("exec {program}: no such file or directory (is its interpreter missing?)"),
        error => anyhow!("exec {program}: {}", error.desc().to_lowercase()),
    })
}

/// What `name` means: itself if it is a path, else the first executable file of that name in `path`.
fn find_program(name: &str, path: &str, access: &dyn Fn(&str) -> Result<(), Errno>) -> Result<String, String> {
    if name.contains('/') {
        return match access(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(Errno::ENOENT) => Err(format!("stat {name}: no such file or directory")),
            Err(error) => Err(error.desc().to_lowercase()),
        };
    }
    let mut reason = "executable file not found in $PATH".to_owned();
    for directory in path.split(':') {
        let candidate = if directory.is_empty() { format!("./{name}") } else { format!("{directory}/{name}") };
        match access(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::EACCES) => reason = "permission denied".to_owned(),
            Err(_) => {}
        }
    }
    Err(reason)
}

fn access(path: &str) -> Result<(), Errno> {
    use std::os::unix::fs::PermissionsExt;
    let found = fs::metadata(Path::new(path)).map_err(|error| error.raw_os_error().map_or(Errno::ENOENT, Errno::from_raw))?;
    if found.is_file() && found.permissions().mode() & 0o111 != 0 { Ok(()) } else { Err(Errno::EACCES) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(path: &str) -> Result<(), Errno> {
        match path {
            "/usr/bin/python3" | "./local" => Ok(()),
            "/bin/data" => Err(Errno::EACCES),
            _ => Err(Errno::ENOENT),
        }
    }

    #[test]
    fn programs_are_found_and_refused_in_known_words() {
        let find = |name: &str| find_program(name, "/bin:/usr/bin:", &present);
        assert_eq!(find("python3"), Ok("/usr/bin/python3".into()));
        assert_eq!(find("local"), Ok("./local".into()));
        assert_eq!(find("foo"), Err("executable file not found in $PATH".into()));
        assert_eq!(find("/foo"), Err("stat /foo: no such file or directory".into()));
        assert_eq!(find("data"), Err("permission denied".into()));
    }
}
