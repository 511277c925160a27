//! The end of the machine.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use emberbox_agent_protocol::Reply;
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use tokio::time::timeout;

use crate::agent::Agent;
use crate::link::Link;
use crate::{boot, console};

/// For the application to end by itself; the host has called its `/terminate` hook before.
const GRACE: Duration = Duration::from_millis(500);
/// For the kernel to take killed processes apart, so that their disk can be unmounted.
const DEATH: Duration = Duration::from_secs(2);

/// Ends the application, syncs, answers and ends the machine.
pub(crate) async fn off(agent: &Rc<Agent>, mut link: Link) {
    if let Some(container) = agent.container() {
        let _ = container.cgroup.thaw();
        let _ = kill(container.pid(), Signal::SIGTERM);
        let _ = timeout(GRACE, container.exited()).await;
        let _ = container.cgroup.kill();
        let _ = timeout(DEATH, container.exited()).await;
    }
    agent.application.take();
    let entries = std::fs::read_dir("/disks").into_iter().flatten().flatten();
    for entry in entries {
        boot::detach(&entry.path());
    }
    let _ = std::fs::remove_dir(Path::new("/disks"));
    nix::unistd::sync();
    console::say("synced; the machine ends");
    if link.send(&Reply::Done).await.is_ok() {
        link.farewell().await;
    }
    reset();
}

/// Ends the machine by a reset, which every virtual machine monitor sees as its end (QEMU by `-no-reboot`). A machine without
/// ACPI power management would only halt on a power off.
pub(crate) fn reset() -> ! {
    nix::unistd::sync();
    let _ = reboot(RebootMode::RB_AUTOBOOT);
    loop {
        std::thread::sleep(GRACE);
    }
}
