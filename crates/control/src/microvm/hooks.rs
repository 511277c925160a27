//! Lifecycle hooks of a MicroVM: which are called and, when one fails, how the API says so.

use std::time::Duration;

use emberbox_host::{HookCall, HostError};
use emberbox_wire::microvms::{HookState, Hooks};

use crate::reason::hook_failure;

/// Documented.
const DEFAULT_TIMEOUT_SECONDS: u32 = 1;

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
        HostError::Hook { hook, outcome, timeout } => hook_failure(hook, outcome, *timeout),
        HostError::DiskFull => format!("DISK_STORAGE_FULL: {step} failed: not enough space on the host's disk"),
        HostError::Exhausted(what) => format!("HOST_EXHAUSTED: {step} failed: the host is out of {what}"),
        HostError::BuildFailed { .. }
        | HostError::BuildTimedOut { .. }
        | HostError::ApplicationNotStarted { .. }
        | HostError::ApplicationExited { .. }
        | HostError::NoSuchMachine(_)
        | HostError::MachineLost { .. }
        | HostError::NoSuchImage(_)
        | HostError::SnapshotRefused(_)
        | HostError::SnapshotDamaged(_)
        | HostError::ImageInUse { .. }
        | HostError::MachineEnded(_)
        | HostError::Internal { .. } => format!("INTERNAL_PLATFORM_ERROR: {step} failed: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use emberbox_agent_protocol::HookOutcome;
    use emberbox_wire::microvms::MicrovmHooks;

    #[test]
    fn reasons_are_in_aws_words() {
        let hook =
            |outcome, seconds| failure_reason("launch", &HostError::Hook { hook: "run", outcome, timeout: Duration::from_secs(seconds) });
        let answered = HookOutcome::Answered { status: 400, body: String::new() };
        assert_eq!(hook(answered, 1), "Run lifecycle hook returned HTTP status 400.");
        assert_eq!(hook(HookOutcome::TimedOut, 1), "Run hook invocation timed out after PT1S");
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
