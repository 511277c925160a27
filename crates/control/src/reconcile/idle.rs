//! Idle policies: suspended after `maxIdleDurationSeconds` without traffic through the endpoint, terminated after `suspendedDurationSeconds`
//! suspended, 0 of which means terminated instead of suspended (documented). No policy: never.

use emberbox_store::{Phase, UnixMillis};
use emberbox_wire::microvms::IdlePolicy;

use crate::control::Core;
use crate::microvm::registry::{Handle, Request};

pub(crate) fn reconcile(core: &Core, handle: &Handle) {
    let Some(policy) = handle.settings.idle_policy else { return };
    let view = handle.view();
    if let Some(request) = due(policy, view.phase, view.since, handle.touched(), core.clock.now()) {
        handle.tell(request);
    }
}

/// What the policy asks for now.
fn due(policy: IdlePolicy, phase: Phase, since: UnixMillis, touched: UnixMillis, now: UnixMillis) -> Option<Request> {
    let limit = |seconds: u32| i64::from(seconds) * 1000;
    match phase {
        Phase::Running => {
            let last = touched.max(since);
            let idle = policy.max_idle_duration_seconds;
            (now.0 - last.0 >= limit(idle)).then(|| match policy.suspended_duration_seconds {
                0 => Request::Terminate { reason: Some(format!("Terminated by the idle policy after {idle} seconds without traffic")) },
                _ => Request::SuspendIdle {
                    idle_since: last,
                    reason: format!("Suspended by the idle policy after {idle} seconds without traffic"),
                },
            })
        }
        Phase::Suspended => {
            let suspended = policy.suspended_duration_seconds;
            let reason = format!("Terminated by the idle policy after {suspended} seconds suspended");
            (now.0 - since.0 >= limit(suspended)).then_some(Request::Terminate { reason: Some(reason) })
        }
        Phase::Launching | Phase::Suspending | Phase::Resuming | Phase::Terminating | Phase::Terminated => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: IdlePolicy = IdlePolicy { max_idle_duration_seconds: 60, suspended_duration_seconds: 10, auto_resume_enabled: true };

    fn at(phase: Phase, touched: i64, now: i64) -> Option<Request> {
        due(POLICY, phase, UnixMillis(1_000), UnixMillis(touched), UnixMillis(now))
    }

    #[test]
    fn the_idle_clock_starts_with_the_phase_and_anew_with_traffic() {
        assert_eq!(at(Phase::Running, 0, 60_999), None);
        assert!(matches!(at(Phase::Running, 0, 61_000), Some(Request::SuspendIdle { idle_since: UnixMillis(1_000), .. })));
        assert_eq!(at(Phase::Running, 5_000, 64_999), None);
        assert!(matches!(at(Phase::Running, 5_000, 65_000), Some(Request::SuspendIdle { .. })));
    }

    #[test]
    fn zero_terminates_instead_of_suspending() {
        let policy = IdlePolicy { suspended_duration_seconds: 0, ..POLICY };
        let due = |phase, now| due(policy, phase, UnixMillis(0), UnixMillis(0), UnixMillis(now));
        assert!(matches!(due(Phase::Running, 60_000), Some(Request::Terminate { .. })));
        assert!(matches!(due(Phase::Suspended, 0), Some(Request::Terminate { .. })));
    }

    #[test]
    fn a_suspended_one_ends_in_time_and_others_are_left_alone() {
        assert_eq!(at(Phase::Suspended, 0, 10_999), None);
        assert!(matches!(at(Phase::Suspended, 0, 11_000), Some(Request::Terminate { .. })));
        for phase in [Phase::Launching, Phase::Suspending, Phase::Resuming, Phase::Terminating, Phase::Terminated] {
            assert_eq!(at(phase, 0, i64::MAX / 2), None);
        }
    }
}
