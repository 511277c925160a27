//! Names the steps of an operation and measures them.

use std::time::{Duration, Instant};

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

    /// As [`Self::mark`], where the engine has said what it did in that time: its own steps by their names, and `name` for the rest.
    pub(crate) fn mark_around(&mut self, parts: StepTimings, name: &str) {
        // Whatever the engine claims, nothing took longer than until now.
        let claimed = parts.0.iter().fold(Duration::ZERO, |sum, (_, time)| sum.saturating_add(*time));
        self.since += claimed.min(self.since.elapsed());
        self.done.0.extend(parts.0);
        self.mark(name);
    }

    pub(crate) fn finish(self) -> StepTimings {
        self.done
    }
}
