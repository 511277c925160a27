//! Failures in the words users read, shared by MicroVMs and image builds.

use std::fmt::Write;
use std::time::Duration;

use emberbox_agent_protocol::HookOutcome;
use emberbox_host::printable;

/// Of a hook's answer.
const BODY_CHARACTERS: usize = 512;

/// A lifecycle hook that did not answer 200, in AWS's words (observed). `hook` as in its path: `ready`, `run`, ...
pub fn hook_failure(hook: &str, outcome: &HookOutcome, timeout: Duration) -> String {
    let name = capitalised(hook);
    match outcome {
        HookOutcome::TimedOut => format!("{name} hook invocation timed out after {}", iso8601(timeout)),
        HookOutcome::Answered { status, body } if body.trim().is_empty() => format!("{name} lifecycle hook returned HTTP status {status}."),
        HookOutcome::Answered { status, body } => {
            format!("{name} lifecycle hook returned HTTP status {status}. The answer was: {}", beginning(body))
        }
        HookOutcome::Unreachable { reason } => format!("{name} lifecycle hook could not be called: {}", beginning(reason)),
        HookOutcome::ApplicationExited { code } => {
            format!("{name} lifecycle hook could not be called: the application exited with code {code}")
        }
    }
}

/// As `java.time.Duration` prints it, which is what AWS shows: hours, minutes and seconds, those that are not zero.
pub fn iso8601(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let mut text = "PT".to_owned();
    for (count, unit) in [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M')] {
        if count > 0 {
            let _ = write!(text, "{count}{unit}");
        }
    }
    match (seconds % 60, duration.subsec_millis()) {
        (0, 0) if seconds > 0 => {}
        (rest, 0) => {
            let _ = write!(text, "{rest}S");
        }
        (rest, millis) => {
            let _ = write!(text, "{}S", format!("{rest}.{millis:03}").trim_end_matches('0'));
        }
    }
    text
}

fn beginning(text: &str) -> String {
    printable(text.trim()).chars().take(BODY_CHARACTERS).collect()
}

fn capitalised(word: &str) -> String {
    let mut rest = word.chars();
    rest.next().map(|first| first.to_ascii_uppercase().to_string() + rest.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_iso_8601() {
        for (millis, text) in [
            (0, "PT0S"),
            (30_000, "PT30S"),
            (60_000, "PT1M"),
            (90_000, "PT1M30S"),
            (300_000, "PT5M"),
            (3_600_000, "PT1H"),
            (3_605_000, "PT1H5S"),
            (1_500, "PT1.5S"),
            (60_050, "PT1M0.05S"),
        ] {
            assert_eq!(iso8601(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn an_answer_is_bounded_and_steers_no_terminal() {
        let body = format!("\u{1b}[31m{}", "x".repeat(5000));
        let reason = hook_failure("run", &HookOutcome::Answered { status: 400, body }, Duration::ZERO);
        assert!(reason.starts_with("Run lifecycle hook returned HTTP status 400. The answer was: [31mx"));
        assert!(reason.len() < BODY_CHARACTERS + 80 && !reason.contains('\u{1b}'));
    }
}
