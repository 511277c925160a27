//! One request's liveness, told to control. Owns its clock; must never flood control with calls, nor let a MicroVM look idle while it works for a client.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use emberbox_control::traffic::Traffic;
use emberbox_wire::ids::MicrovmId;
use tokio::time::Instant;

/// Touches at birth, at most every `every` while bytes move, and at the end.
pub(crate) struct Activity {
    traffic: Arc<dyn Traffic>,
    microvm: MicrovmId,
    every: Duration,
    began: Instant,
    /// Milliseconds since `began`.
    touched: AtomicU64,
    moved: AtomicU64,
}

impl Activity {
    pub(crate) fn begin(traffic: Arc<dyn Traffic>, microvm: MicrovmId, every: Duration) -> Arc<Self> {
        traffic.touch(microvm);
        Arc::new(Self { traffic, microvm, every, began: Instant::now(), touched: AtomicU64::new(0), moved: AtomicU64::new(0) })
    }

    /// Bytes moved.
    pub(crate) fn moved(&self) {
        self.moved.store(self.now(), Ordering::Relaxed);
        self.touch_if_due();
    }

    /// The request is in progress, whether or not bytes move. The application may be computing its answer (ours).
    pub(crate) fn touch_if_due(&self) {
        let (now, touched) = (self.now(), self.touched.load(Ordering::Relaxed));
        let due = now.saturating_sub(touched) >= millis(self.every);
        if due && self.touched.compare_exchange(touched, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.traffic.touch(self.microvm);
        }
    }

    /// Since bytes moved last.
    pub(crate) fn still_for(&self) -> Duration {
        Duration::from_millis(self.now().saturating_sub(self.moved.load(Ordering::Relaxed)))
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.traffic.touch(self.microvm);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
