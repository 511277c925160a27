//! Idle policies: suspended after `maxIdleDurationSeconds` without traffic through the endpoint, terminated after `suspendedDurationSeconds`
//! suspended, 0 of which means terminated instead of suspended (documented). No policy: never. Where the image or the operator says so, a MicroVM
//! that is computing is not idle (ours; `activity.rs`). Counted on the steady clock.

use emberbox_store::{IdleSignal, Phase, SteadyMillis};
use emberbox_wire::microvms::IdlePolicy;

use crate::control::Core;
use crate::events::Cause;
use crate::microvm::registry::{Handle, Request};

pub(crate) fn reconcile(core: &Core, handle: &Handle) {
    let Some(policy) = handle.settings.idle_policy else { return };
    let view = handle.view();
    let activity = Activity { signal: handle.settings.idle_signal, touched: handle.touched(), busy: handle.busy() };
    if let Some(request) = due(policy, activity, view.phase, view.since, core.steady.now().steady) {
        handle.tell(request);
    }
}

/// When it last did what counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Activity {
    signal: IdleSignal,
    touched: SteadyMillis,
    busy: SteadyMillis,
}

impl Activity {
    fn last(self) -> SteadyMillis {
        match self.signal {
            IdleSignal::Traffic => self.touched,
            IdleSignal::TrafficAndCpu => self.touched.max(self.busy),
        }
    }

    fn absent(self) -> &'static str {
        match self.signal {
            IdleSignal::Traffic => "without traffic",
            IdleSignal::TrafficAndCpu => "without traffic or computation",
        }
    }
}

/// What the policy asks for now.
fn due(policy: IdlePolicy, activity: Activity, phase: Phase, since: SteadyMillis, now: SteadyMillis) -> Option<Request> {
    let limit = |seconds: u32| i64::from(seconds) * 1000;
    let cause = Cause::IdlePolicy;
    match phase {
        Phase::Running => {
            let last = activity.last().max(since);
            let (idle, absent) = (policy.max_idle_duration_seconds, activity.absent());
            (now.0 - last.0 >= limit(idle)).then(|| match policy.suspended_duration_seconds {
                0 => Request::End { cause, reason: format!("Terminated by the idle policy after {idle} seconds {absent}") },
                // What has come in since `last` was looked at is traffic, and is looked at again.
                _ => Request::SuspendIdle {
                    idle_since: last,
                    cause,
                    reason: format!("Suspended by the idle policy after {idle} seconds {absent}"),
                },
            })
        }
        Phase::Suspended => {
            let suspended = policy.suspended_duration_seconds;
            let reason = format!("Terminated by the idle policy after {suspended} seconds suspended");
            (now.0 - since.0 >= limit(suspended)).then_some(Request::End { cause, reason })
        }
        Phase::Launching | Phase::Suspending | Phase::Resuming | Phase::Terminating | Phase::Terminated => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: IdlePolicy = IdlePolicy { max_idle_duration_seconds: 60, suspended_duration_seconds: 10, auto_resume_enabled: true };

    fn activity(touched: i64) -> Activity {
        Activity { signal: IdleSignal::Traffic, touched: SteadyMillis(touched), busy: SteadyMillis(0) }
    }

    fn at(phase: Phase, touched: i64, now: i64) -> Option<Request> {
        due(POLICY, activity(touched), phase, SteadyMillis(1_000), SteadyMillis(now))
    }

    #[test]
    fn the_idle_clock_starts_with_the_phase_and_anew_with_traffic() {
        assert_eq!(at(Phase::Running, 0, 60_999), None);
        assert!(matches!(at(Phase::Running, 0, 61_000), Some(Request::SuspendIdle { idle_since: SteadyMillis(1_000), .. })));
        assert_eq!(at(Phase::Running, 5_000, 64_999), None);
        assert!(matches!(at(Phase::Running, 5_000, 65_000), Some(Request::SuspendIdle { .. })));
    }

    #[test]
    fn computation_counts_where_it_is_asked_for() {
        let busy = |signal| Activity { signal, touched: SteadyMillis(0), busy: SteadyMillis(5_000) };
        let at = |signal, now| due(POLICY, busy(signal), Phase::Running, SteadyMillis(0), SteadyMillis(now));
        assert!(at(IdleSignal::Traffic, 60_000).is_some());
        assert_eq!(at(IdleSignal::TrafficAndCpu, 64_999), None);
        let Some(Request::SuspendIdle { reason, .. }) = at(IdleSignal::TrafficAndCpu, 65_000) else { panic!("it is due") };
        assert_eq!(reason, "Suspended by the idle policy after 60 seconds without traffic or computation");
    }

    #[test]
    fn zero_terminates_instead_of_suspending() {
        let policy = IdlePolicy { suspended_duration_seconds: 0, ..POLICY };
        let due = |phase, now| due(policy, activity(0), phase, SteadyMillis(0), SteadyMillis(now));
        assert!(matches!(due(Phase::Running, 60_000), Some(Request::End { .. })));
        assert!(matches!(due(Phase::Suspended, 0), Some(Request::End { .. })));
    }

    #[test]
    fn a_suspended_one_ends_in_time_and_others_are_left_alone() {
        assert_eq!(at(Phase::Suspended, 0, 10_999), None);
        assert!(matches!(at(Phase::Suspended, 0, 11_000), Some(Request::End { .. })));
        for phase in [Phase::Launching, Phase::Suspending, Phase::Resuming, Phase::Terminating, Phase::Terminated] {
            assert_eq!(at(phase, 0, i64::MAX / 2), None);
        }
    }
}
