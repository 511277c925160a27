//! Which phase follows which. Pure: the driver carries out what is decided here.
//!
//! ```text
//!              launched          suspend            suspend done
//!  LAUNCHING ──────────▶ RUNNING ───────▶ SUSPENDING ───────────▶ SUSPENDED
//!      │                  ▲  ▲  ◀───────────┘ suspend failed       │   ▲
//!      │                  │  │                             resume  │   │ resume failed
//!      │                  │  └───────────── RESUMING ◀─────────────┘   │
//!      │                  │   resume done      └───────────────────────┘
//!      │ launch failed    │
//!      └──────────┐       │ exited, lost, terminate: from every phase before
//!                 ▼       ▼
//!               TERMINATING ──stopped──▶ TERMINATED
//! ```
//!
//! Entering LAUNCHING, SUSPENDING, RESUMING or TERMINATING begins the work of that name; SUSPENDING, RESUMING and LAUNCHING end by its outcome.
//! A termination asked for while work is under way is recorded at once and waits the work out. The API shows LAUNCHING as PENDING and RESUMING as
//! SUSPENDED.

use emberbox_store::Phase;
use emberbox_wire::ids::MicrovmId;
use emberbox_wire::microvms::MicrovmState;

use crate::refusal::word;

/// What happens to a MicroVM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// Asked for.
    Suspend,
    Resume,
    Terminate,
    /// Its process ended unasked.
    Exited,
    /// Outcomes of work.
    Launched,
    LaunchFailed,
    SuspendDone,
    SuspendFailed,
    ResumeDone,
    ResumeFailed,
    /// The host has nothing left of it.
    Lost,
    Stopped,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    To(Phase),
    /// It is so, or on its way there: the request succeeds and changes nothing.
    Already,
    Refuse(Conflict),
    /// Comes too early to be understood: looked at again when the work under way has ended.
    Defer,
    /// Late or meaningless here.
    Ignore,
}

/// Why a change cannot be asked for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conflict {
    Terminated,
    CannotSuspend(MicrovmState),
    CannotResume(MicrovmState),
    /// A wake is under way, which the API shows as SUSPENDED.
    Resuming,
}

impl Conflict {
    pub(crate) fn message(self, microvm: MicrovmId) -> String {
        match self {
            // Observed.
            Self::Terminated => format!("MicroVM {microvm} has been terminated and its state cannot be changed."),
            Self::CannotSuspend(state) => format!("MicroVM {microvm} is {} and cannot be suspended; it must be RUNNING.", word(state)),
            Self::CannotResume(state) => format!("MicroVM {microvm} is {} and cannot be resumed; it must be SUSPENDED.", word(state)),
            Self::Resuming => format!("MicroVM {microvm} is being resumed and cannot be suspended; it must be RUNNING."),
        }
    }
}

pub(crate) fn react(phase: Phase, event: Event) -> Reaction {
    match phase {
        Phase::Launching => launching(event),
        Phase::Running => running(event),
        Phase::Suspending => suspending(event),
        Phase::Suspended => suspended(event),
        Phase::Resuming => resuming(event),
        Phase::Terminating => terminating(event),
        Phase::Terminated => terminated(event),
    }
}

fn launching(event: Event) -> Reaction {
    match event {
        Event::Suspend => Reaction::Refuse(Conflict::CannotSuspend(MicrovmState::Pending)),
        Event::Resume => Reaction::Refuse(Conflict::CannotResume(MicrovmState::Pending)),
        Event::Launched => Reaction::To(Phase::Running),
        Event::Terminate | Event::LaunchFailed | Event::Lost => Reaction::To(Phase::Terminating),
        Event::Exited => Reaction::Defer,
        Event::SuspendDone | Event::SuspendFailed | Event::ResumeDone | Event::ResumeFailed | Event::Stopped => Reaction::Ignore,
    }
}

fn running(event: Event) -> Reaction {
    match event {
        Event::Suspend => Reaction::To(Phase::Suspending),
        Event::Resume => Reaction::Already,
        Event::Terminate | Event::Exited | Event::Lost => Reaction::To(Phase::Terminating),
        Event::Launched
        | Event::LaunchFailed
        | Event::SuspendDone
        | Event::SuspendFailed
        | Event::ResumeDone
        | Event::ResumeFailed
        | Event::Stopped => Reaction::Ignore,
    }
}

fn suspending(event: Event) -> Reaction {
    match event {
        Event::Suspend => Reaction::Already,
        Event::Resume => Reaction::Refuse(Conflict::CannotResume(MicrovmState::Suspending)),
        Event::SuspendDone => Reaction::To(Phase::Suspended),
        Event::SuspendFailed => Reaction::To(Phase::Running),
        Event::Terminate | Event::Lost => Reaction::To(Phase::Terminating),
        Event::Exited => Reaction::Defer,
        Event::Launched | Event::LaunchFailed | Event::ResumeDone | Event::ResumeFailed | Event::Stopped => Reaction::Ignore,
    }
}

fn suspended(event: Event) -> Reaction {
    match event {
        Event::Suspend => Reaction::Already,
        Event::Resume => Reaction::To(Phase::Resuming),
        Event::Terminate | Event::Lost => Reaction::To(Phase::Terminating),
        // The process of a suspended MicroVM has ended; hearing so late says nothing about its snapshot.
        Event::Exited => Reaction::Ignore,
        Event::Launched
        | Event::LaunchFailed
        | Event::SuspendDone
        | Event::SuspendFailed
        | Event::ResumeDone
        | Event::ResumeFailed
        | Event::Stopped => Reaction::Ignore,
    }
}

fn resuming(event: Event) -> Reaction {
    match event {
        Event::Suspend => Reaction::Refuse(Conflict::Resuming),
        Event::Resume => Reaction::Already,
        Event::ResumeDone => Reaction::To(Phase::Running),
        Event::ResumeFailed => Reaction::To(Phase::Suspended),
        Event::Terminate | Event::Lost => Reaction::To(Phase::Terminating),
        Event::Exited => Reaction::Defer,
        Event::Launched | Event::LaunchFailed | Event::SuspendDone | Event::SuspendFailed | Event::Stopped => Reaction::Ignore,
    }
}

fn terminating(event: Event) -> Reaction {
    match event {
        Event::Suspend | Event::Resume => Reaction::Refuse(Conflict::Terminated),
        Event::Terminate => Reaction::Already,
        Event::Stopped => Reaction::To(Phase::Terminated),
        Event::Exited
        | Event::Launched
        | Event::LaunchFailed
        | Event::SuspendDone
        | Event::SuspendFailed
        | Event::ResumeDone
        | Event::ResumeFailed
        | Event::Lost => Reaction::Ignore,
    }
}

fn terminated(event: Event) -> Reaction {
    match event {
        Event::Suspend | Event::Resume => Reaction::Refuse(Conflict::Terminated),
        Event::Terminate => Reaction::Already,
        Event::Exited
        | Event::Launched
        | Event::LaunchFailed
        | Event::SuspendDone
        | Event::SuspendFailed
        | Event::ResumeDone
        | Event::ResumeFailed
        | Event::Lost
        | Event::Stopped => Reaction::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 12] = [
        Event::Suspend,
        Event::Resume,
        Event::Terminate,
        Event::Exited,
        Event::Launched,
        Event::LaunchFailed,
        Event::SuspendDone,
        Event::SuspendFailed,
        Event::ResumeDone,
        Event::ResumeFailed,
        Event::Lost,
        Event::Stopped,
    ];

    fn pairs() -> impl Iterator<Item = (Phase, Event, Reaction)> {
        Phase::ALL.into_iter().flat_map(|phase| EVENTS.into_iter().map(move |event| (phase, event, react(phase, event))))
    }

    #[test]
    fn every_arrow_is_in_the_diagram() {
        use Phase::{Launching, Resuming, Running, Suspended, Suspending, Terminated, Terminating};
        let arrows = [
            (Launching, Running),
            (Running, Suspending),
            (Suspending, Suspended),
            (Suspending, Running),
            (Suspended, Resuming),
            (Resuming, Running),
            (Resuming, Suspended),
            (Terminating, Terminated),
        ];
        for (from, event, reaction) in pairs() {
            let Reaction::To(to) = reaction else { continue };
            let ends = to == Terminating && from != Terminated && from != Terminating;
            assert!(ends || arrows.contains(&(from, to)), "{from:?} --{event:?}--> {to:?}");
        }
    }

    #[test]
    fn terminating_only_leads_to_terminated_and_terminated_nowhere() {
        for (phase, event, reaction) in pairs() {
            match phase {
                Phase::Terminated => assert!(!matches!(reaction, Reaction::To(_) | Reaction::Defer), "{event:?}"),
                Phase::Terminating => assert!(!matches!(reaction, Reaction::To(to) if to != Phase::Terminated), "{event:?}"),
                Phase::Launching | Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming => {
                    assert!(event != Event::Terminate || reaction == Reaction::To(Phase::Terminating));
                }
            }
        }
    }

    #[test]
    fn requests_are_answered_and_outcomes_never_refused() {
        for (phase, event, reaction) in pairs() {
            let request = matches!(event, Event::Suspend | Event::Resume | Event::Terminate);
            if request {
                assert!(!matches!(reaction, Reaction::Ignore | Reaction::Defer), "{phase:?} {event:?}");
            } else {
                assert!(!matches!(reaction, Reaction::Already | Reaction::Refuse(_)), "{phase:?} {event:?}");
            }
        }
    }

    #[test]
    fn a_request_repeated_where_it_led_succeeds() {
        for (_, event, reaction) in pairs() {
            if let (Event::Suspend | Event::Resume | Event::Terminate, Reaction::To(to)) = (event, reaction) {
                assert_eq!(react(to, event), Reaction::Already, "{event:?}");
            }
        }
    }

    /// Only work that is under way may be waited for.
    #[test]
    fn nothing_is_deferred_where_no_work_ends() {
        for (phase, event, reaction) in pairs() {
            if reaction == Reaction::Defer {
                assert!(matches!(phase, Phase::Launching | Phase::Suspending | Phase::Resuming), "{phase:?} {event:?}");
            }
        }
    }
}
