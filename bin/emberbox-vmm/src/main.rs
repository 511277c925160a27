//! The monitor process: `emberbox-vmm --control <fd> --kvm <fd> --uid <number> --io-uring <0 or 1>`, started by the daemon as root in a pid namespace of its own.
//!
//! It owns one machine; `crates/vmm` does all of it. It is of no use to a person at a terminal.

use std::os::fd::{FromRawFd, OwnedFd};

use anyhow::{Context, ensure};
use emberbox_vmm::Monitor;

fn main() -> anyhow::Result<()> {
    let (control, kvm) = (argument("--control")?, argument("--kvm")?);
    ensure!(control > 2 && kvm > 2 && control != kvm, "--control and --kvm are two descriptors that the daemon hands over");
    let uid = u32::try_from(argument("--uid")?).context("--uid")?;
    let io_uring = argument("--io-uring")? == 1;
    Monitor { control: inherited(control)?.into(), kvm: inherited(kvm)?, uid, io_uring }.run()?;
    Ok(())
}

/// The number that follows `name`.
fn argument(name: &str) -> anyhow::Result<i32> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name).skip(1);
    arguments.next().and_then(|value| value.parse().ok()).with_context(|| format!("emberbox-vmm is started by emberbox: {name} is missing"))
}

/// A descriptor that the process was started with.
#[allow(unsafe_code)]
fn inherited(number: i32) -> anyhow::Result<OwnedFd> {
    // SAFETY: F_SETFD on a number that is not open fails and changes nothing.
    let open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    ensure!(open == 0, "descriptor {number} is not open");
    // SAFETY: it is open, it was inherited, and main takes each number once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
