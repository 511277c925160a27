//! Lifecycle hooks of a MicroVM: which are called and, when one fails, how the API says so.

use std::time::Duration;

use emberbox_agent_protocol::HookOutcome;
use emberbox_host::{HookCall, HostError};
use emberbox_wire::microvms::{HookState, Hooks};

/// Documented.
const DEFAULT_TIMEOUT_SECONDS: u32 = 1;
/// Of a hook's answer, in a `stateReason`.
const BODY_CHARACTERS: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hook {
    Run,
    Suspend,
    Resume,
    Terminate,
}

/// How to call `hook`; `None` when the image has not enabled it.
pub(crate) fn call(hooks: &Hooks, hook: Hook) -> Option<HookCall> {
    let all = hooks.microvm_hooks.as_ref()?;
    let (state, timeout) = match hook {
        Hook::Run => (all.run, all.run_timeout_in_seconds),
        Hook::Suspend => (all.suspend, all.suspend_timeout_in_seconds),
        Hook::Resume => (all.resume, all.resume_timeout_in_seconds),
        Hook::Terminate => (all.terminate, all.terminate_timeout_in_seconds),
    };
    let timeout = Duration::from_secs(timeout.unwrap_or(DEFAULT_TIMEOUT_SECONDS).into());
    (state == Some(HookState::Enabled)).then_some(HookCall { port: hooks.port?, timeout })
}

/// `stateReason` of a MicroVM whose `step` failed: a hook's failure in AWS's words (observed), a fault of the host's in ours.
pub(crate) fn failure_reason(step: &str, error: &HostError) -> String {
    match error {
        HostError::Hook { hook, outcome, timeout } => hook_reason(hook, outcome, *timeout),
        HostError::DiskFull => format!("DISK_STORAGE_FULL: {step} failed: not enough space on the host's disk"),
        HostError::BuildFailed { .. }
        | HostError::BuildTimedOut { .. }
        | HostError::ApplicationNotStarted { .. }
        | HostError::ApplicationExited { .. }
        | HostError::NoSuchMachine(_)
        | HostError::MachineLost { .. }
        | HostError::NoSuchImage(_)
        | HostError::SnapshotRefused(_)
        | HostError::Internal { .. } => format!("INTERNAL_PLATFORM_ERROR: {step} failed: {error}"),
    }
}

fn hook_reason(hook: &str, outcome: &HookOutcome, timeout: Duration) -> String {
    let name = capitalised(hook.trim_start_matches('/'));
    match outcome {
        HookOutcome::Answered { status, body } if body.trim().is_empty() => {
            format!("{name} lifecycle hook returned HTTP status {status}.")
        }
        HookOutcome::Answered { status, body } => {
            format!("{name} lifecycle hook returned HTTP status {status}. The answer was: {}", printable(body))
        }
        HookOutcome::TimedOut => format!("{name} lifecycle hook invocation timed out after {}", iso_8601(timeout)),
        HookOutcome::Unreachable { reason } => format!("{name} lifecycle hook could not be invoked: {reason}"),
        HookOutcome::ApplicationExited { code } => {
            format!("{name} lifecycle hook could not be invoked: the application exited with code {code}")
        }
    }
}

/// Guests write what they like; terminals that show a reason are not theirs to steer.
fn printable(body: &str) -> String {
    body.trim().chars().filter(|character| !character.is_control()).take(BODY_CHARACTERS).collect()
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `PT1S`, `PT5M`, `PT1H0M30S` without the zeros (observed).
fn iso_8601(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts = [(seconds / 3600, 'H'), (seconds / 60 % 60, 'M'), (seconds % 60, 'S')];
    let text: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if text.is_empty() { "PT0S".into() } else { format!("PT{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use emberbox_wire::microvms::MicrovmHooks;

    #[test]
    fn reasons_are_in_aws_words() {
        let hook =
            |outcome, seconds| failure_reason("launch", &HostError::Hook { hook: "run", outcome, timeout: Duration::from_secs(seconds) });
        let answered = HookOutcome::Answered { status: 400, body: String::new() };
        assert_eq!(hook(answered, 1), "Run lifecycle hook returned HTTP status 400.");
        assert_eq!(hook(HookOutcome::TimedOut, 1), "Run lifecycle hook invocation timed out after PT1S");
        assert_eq!(iso_8601(Duration::from_secs(300)), "PT5M");
        assert_eq!(iso_8601(Duration::from_secs(3690)), "PT1H1M30S");
    }

    #[test]
    fn only_enabled_hooks_are_called() {
        let mut hooks = Hooks { port: Some(9000), ..Hooks::default() };
        assert_eq!(call(&hooks, Hook::Run), None);
        hooks.microvm_hooks =
            Some(MicrovmHooks { run: Some(HookState::Enabled), suspend: Some(HookState::Disabled), ..MicrovmHooks::default() });
        assert_eq!(call(&hooks, Hook::Run), Some(HookCall { port: 9000, timeout: Duration::from_secs(1) }));
        assert_eq!(call(&hooks, Hook::Suspend), None);
    }
}
