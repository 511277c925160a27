//! One control group: the unit that is frozen and killed. Plain files of cgroup v2.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

const HIERARCHY: &str = "/sys/fs/cgroup";
/// Controllers handed down to groups that may hold containers of their own.
const DELEGATED: &str = "+cpu +memory +pids +io";
/// Freezing waits for every thread to reach a safe point; a thread in a long disk wait is the slowest.
const FREEZE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(1);

pub(crate) struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    pub(crate) fn create(name: &str) -> Result<Self> {
        let path = Path::new(HIERARCHY).join(name);
        fs::create_dir_all(&path).with_context(|| format!("creating cgroup {name}"))?;
        Ok(Self { path })
    }

    /// Lets groups below the root use controllers. Costs accounting, so only those who need it ask.
    pub(crate) fn delegate_controllers() {
        for controller in DELEGATED.split(' ') {
            let _ = fs::write(Path::new(HIERARCHY).join("cgroup.subtree_control"), controller);
        }
    }

    /// The directory, for a process to be born in.
    pub(crate) fn open(&self) -> Result<File> {
        File::open(&self.path).context("opening the cgroup")
    }

    /// Returns when every process is frozen; thaws again when that takes too long.
    pub(crate) async fn freeze(&self) -> Result<()> {
        self.write("cgroup.freeze", "1")?;
        let deadline = Instant::now() + FREEZE;
        while !self.event("frozen 1")? {
            if Instant::now() > deadline {
                self.thaw()?;
                bail!("the application could not be frozen within {} s", FREEZE.as_secs());
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    pub(crate) fn thaw(&self) -> Result<()> {
        self.write("cgroup.freeze", "0")
    }

    /// SIGKILL to everything inside, frozen or not.
    pub(crate) fn kill(&self) -> Result<()> {
        self.write("cgroup.kill", "1")
    }

    /// Removes the group if nothing is left in it.
    pub(crate) fn remove(&self) {
        let _ = fs::remove_dir(&self.path);
    }

    fn event(&self, line: &str) -> Result<bool> {
        let events = fs::read_to_string(self.path.join("cgroup.events")).context("reading cgroup.events")?;
        Ok(events.lines().any(|found| found == line))
    }

    fn write(&self, file: &str, value: &str) -> Result<()> {
        fs::write(self.path.join(file), value).with_context(|| format!("writing {file}"))
    }
}
