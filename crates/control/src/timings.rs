//! Where the time of an operation went, by named step: control's own share and the host's.

use std::time::{Duration, Instant};

use emberbox_host::StepTimings;
use serde_json::{Value, json};

/// Control's own steps of one operation.
#[derive(Debug, Clone)]
pub(crate) struct Stopwatch {
    began: Instant,
    last: Instant,
    steps: Vec<(&'static str, Duration)>,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, steps: Vec::new() }
    }

    /// A step of control's ended.
    pub(crate) fn step(&mut self, name: &'static str) {
        let now = Instant::now();
        self.steps.push((name, now - self.last));
        self.last = now;
    }

    /// What passed since the last step was somebody else's.
    pub(crate) fn skip(&mut self) {
        self.last = Instant::now();
    }

    /// `{"total_ms", "daemon_ms", "steps": [{"name", "ms", "of": "control" | "host"}]}`; the host's steps lie before control's last one.
    pub(crate) fn report(&self, host: &StepTimings) -> Value {
        let step = |name: &str, time: Duration, of: &str| json!({"name": name, "ms": milliseconds(time), "of": of});
        let control = self.steps.iter().map(|(name, time)| step(name, *time, "control"));
        let host = host.0.iter().map(|(name, time)| step(name, *time, "host"));
        json!({
            "total_ms": milliseconds(self.began.elapsed()),
            "daemon_ms": milliseconds(self.steps.iter().map(|(_, time)| *time).sum()),
            "steps": control.chain(host).collect::<Vec<_>>(),
        })
    }
}

/// With microseconds kept and no more.
fn milliseconds(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}
