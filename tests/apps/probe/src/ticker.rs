//! A periodic timer that catches up, as many runtimes' intervals do: ten milliseconds by the monotonic clock. After a suspension it must not be found far
//! behind, or every timer of an application would fire in one storm.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::json::{Json, object};

const INTERVAL: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Counts {
    ticks: AtomicU64,
    /// The most intervals that were due at once.
    largest_burst: AtomicU64,
}

pub(crate) struct Ticker(Arc<Counts>);

impl Ticker {
    pub(crate) fn start() -> io::Result<Self> {
        let counts = Arc::new(Counts::default());
        if crate::is_quiet() {
            return Ok(Self(counts));
        }
        let written = counts.clone();
        thread::Builder::new().name("ticker".into()).spawn(move || {
            let mut next = Instant::now() + INTERVAL;
            loop {
                thread::sleep(next.saturating_duration_since(Instant::now()));
                let now = Instant::now();
                let mut burst = 0;
                while next <= now {
                    next += INTERVAL;
                    burst += 1;
                }
                written.ticks.fetch_add(burst, Ordering::Relaxed);
                written.largest_burst.fetch_max(burst, Ordering::Relaxed);
            }
        })?;
        Ok(Self(counts))
    }

    pub(crate) fn to_json(&self) -> Json {
        let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed).into();
        object([("ticks", number(&self.0.ticks)), ("largest_burst", number(&self.0.largest_burst)), ("interval_ms", 10_u64.into())])
    }

    /// Forgets what a busy host caused before.
    pub(crate) fn reset(&self) {
        self.0.largest_burst.store(0, Ordering::Relaxed);
    }
}
