//! Time as control sees it, so that tests can move it: wall time for people, and time since boot, which no change of the wall clock touches.

use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use emberbox_store::UnixMillis;
use nix::time::{ClockId, clock_gettime};

/// Names one boot of this host.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// How long this host has been up, its own suspension included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinceBoot {
    /// Another one after each boot.
    pub boot: String,
    pub time: Duration,
}

pub trait Clock: Send + Sync + 'static {
    /// Wall time. It may jump either way.
    fn now(&self) -> UnixMillis;
    fn since_boot(&self) -> SinceBoot;
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// A kernel without the file: every start of the daemon counts as a boot, which trusts the wall clock between them.
fn boot_id() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    let read = || std::fs::read_to_string(BOOT_ID).unwrap_or_else(|_| uuid::Uuid::new_v4().to_string());
    BOOT.get_or_init(|| read().trim().to_owned())
}

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn since_boot(&self) -> SinceBoot {
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).expect("Linux has CLOCK_BOOTTIME since 2.6.39");
        SinceBoot { boot: boot_id().to_owned(), time }
    }
}
