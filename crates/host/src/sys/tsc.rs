//! The frequency of the time stamp counter, which guests under TCG must be told (calibration against a timer hangs on busy hosts).

use std::time::{Duration, Instant};

/// Long enough that reading the clock (about 50 ns) is an error below one part in 10^6.
const WINDOW: Duration = Duration::from_millis(100);

/// Ticks per millisecond of the host's counter.
#[cfg(target_arch = "x86_64")]
pub(crate) fn measure_khz() -> u64 {
    let (start, first) = (Instant::now(), ticks());
    std::thread::sleep(WINDOW);
    let (elapsed, last) = (start.elapsed(), ticks());
    u64::try_from(u128::from(last.wrapping_sub(first)) * 1_000_000 / elapsed.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> u64 {
    // SAFETY: RDTSC exists on every x86_64 CPU and reads a register without touching memory.
    unsafe { std::arch::x86_64::_rdtsc() }
}
