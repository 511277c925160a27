//! Names the steps of an operation and measures them.

use std::time::Instant;

use crate::StepTimings;

/// A stopwatch that is always in some step.
pub(crate) struct Steps {
    since: Instant,
    done: StepTimings,
}

impl Steps {
    pub(crate) fn start() -> Self {
        Self { since: Instant::now(), done: StepTimings::default() }
    }

    /// The time since the last mark was `name`.
    pub(crate) fn mark(&mut self, name: &str) {
        let now = Instant::now();
        self.done.0.push((name.to_owned(), now - self.since));
        self.since = now;
    }

    pub(crate) fn finish(self) -> StepTimings {
        self.done
    }
}
