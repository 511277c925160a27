//! Names the steps of a start and measures them.

use std::time::Instant;

/// A stopwatch that is always in some step.
pub(crate) struct Steps {
    since: Instant,
    done: Vec<(String, u64)>,
}

impl Steps {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), done: Vec::new() }
    }

    /// What passed since the last mark belongs to no step.
    pub(crate) fn go_on(self) -> Self {
        Self { since: Instant::now(), ..self }
    }

    /// The time since the last mark was `name`.
    pub(crate) fn mark(&mut self, name: &str) {
        let now = Instant::now();
        self.done.push((name.to_owned(), u64::try_from((now - self.since).as_micros()).unwrap_or(u64::MAX)));
        self.since = now;
    }

    /// Names and microseconds.
    pub(crate) fn finish(self) -> Vec<(String, u64)> {
        self.done
    }
}
