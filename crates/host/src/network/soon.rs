//! Waits for what a daemon that was killed still holds: a process that it was starting keeps its locks and sockets until it is executed.

use std::time::{Duration, Instant};

const WITHIN: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(20);

/// The first outcome that does not say that it is held, or the last.
pub(super) fn soon<T>(attempt: impl Fn() -> T, is_held: impl Fn(&T) -> bool) -> T {
    let since = Instant::now();
    loop {
        let outcome = attempt();
        if !is_held(&outcome) || since.elapsed() >= WITHIN {
            return outcome;
        }
        std::thread::sleep(AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_is_not_held_is_not_waited_for() {
        let attempts = Cell::new(0);
        assert_eq!(soon(|| attempts.replace(attempts.get() + 1), |_| false), 0);
        assert_eq!(attempts.get(), 1);
    }

    #[test]
    fn waiting_ends() {
        let began = Instant::now();
        assert!(!soon(|| false, |free| !free));
        assert!(began.elapsed() >= WITHIN);
    }
}
