//! Lines for an operator on the guest's console. Nothing secret and nothing of the application's goes here.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;

use nix::time::{ClockId, clock_gettime};

static CONSOLE: OnceLock<File> = OnceLock::new();

/// Opens the console once /dev is there. Non-blocking: a host that does not read must not stop PID 1.
pub(crate) fn open() {
    let device = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open("/dev/console");
    if let Ok(device) = device {
        let _ = CONSOLE.set(device);
    }
}

/// Prints `text` after the milliseconds since the kernel's start.
pub(crate) fn say(text: &str) {
    let line = format!("emberbox-agent [{:>5} ms] {text}\n", since_start_ms());
    match CONSOLE.get() {
        Some(mut device) => drop(device.write_all(line.as_bytes())),
        None => eprint!("{line}"),
    }
}

fn since_start_ms() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map(std::time::Duration::from);
    now.map_or(0, |now| now.as_millis() as u64)
}
