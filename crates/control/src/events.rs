//! What happens to MicroVMs and builds, told as it happens: to the event stream, and what nobody asked for to the audit log too.
//!
//! For people and scripts. Records are the truth: an event may be lost with the daemon that was about to write it.

use std::sync::Arc;

use emberbox_store::{MicrovmRecord, Phase, UnixMillis};
use emberbox_wire::audit::{AuditEvent, AuditLog, AuditResource};
use emberbox_wire::ids::AccountId;
use serde::Serialize;
use serde_json::{Value, json};

use crate::control::Core;

/// Takes events. Called in the middle of transitions: it must not block.
pub trait EventSink: Send + Sync + 'static {
    fn emit(&self, event: Event);
}

/// Why something happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A call of the API.
    Request,
    /// A request through the endpoint that woke it.
    Traffic,
    IdlePolicy,
    MaximumDuration,
    /// The host ran short of memory.
    MemoryPressure,
    /// The host refused, or a hook did.
    Failure,
    /// Its process ended unasked.
    Exit,
    /// What a restart of the daemon found.
    Restart,
    /// The daemon is being stopped.
    Shutdown,
}

impl Cause {
    /// Whether a caller asked for it: then the audit log has the call.
    fn is_asked_for(self) -> bool {
        match self {
            Self::Request => true,
            Self::Traffic
            | Self::IdlePolicy
            | Self::MaximumDuration
            | Self::MemoryPressure
            | Self::Failure
            | Self::Exit
            | Self::Restart
            | Self::Shutdown => false,
        }
    }
}

/// One event; a line of the stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    #[serde(skip)]
    pub at: UnixMillis,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<AccountId>,
    #[serde(flatten)]
    pub what: Happening,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Happening {
    /// A MicroVM entered a phase. `from` is absent at its launch.
    Microvm {
        microvm: String,
        image: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<Phase>,
        to: Phase,
        cause: Cause,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// A build ended.
    Build {
        build: String,
        image: String,
        state: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The daemon serves, and this is what its start found and did.
    Started {
        found: Value,
    },
    Stopping,
    /// Wall time jumped; nothing else did.
    WallClock {
        jumped_seconds: f64,
    },
    /// Records or files that were kept long enough are gone.
    Reaped {
        microvms: usize,
        disks: usize,
    },
}

impl Event {
    pub(crate) fn of(account: &AccountId, what: Happening, at: UnixMillis) -> Self {
        Self { at, account: Some(account.clone()), what }
    }
}

/// Tells the event stream and the audit log.
pub(crate) struct Teller {
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) audit: Arc<dyn AuditLog>,
}

impl Teller {
    /// `record` is in its new phase.
    pub(crate) fn microvm(&self, record: &MicrovmRecord, from: Option<Phase>, cause: Cause, at: UnixMillis) {
        let what = Happening::Microvm {
            microvm: record.id.to_string(),
            image: record.image_arn.to_string(),
            from,
            to: record.phase,
            cause,
            reason: record.state_reason.clone(),
        };
        self.events.emit(Event::of(&record.account, what, at));
        if !cause.is_asked_for()
            && let Some(name) = audit_name(from, record.phase)
        {
            self.audit.event(audit_event(record, name, cause));
        }
    }
}

/// What CloudTrail would call a change nobody asked for: once for each, when it has come about.
fn audit_name(from: Option<Phase>, to: Phase) -> Option<&'static str> {
    match (from, to) {
        (_, Phase::Suspended) if from == Some(Phase::Resuming) => Some("MicrovmResumeFailed"),
        (_, Phase::Suspended) => Some("MicrovmSuspended"),
        (Some(Phase::Suspending), Phase::Running) => Some("MicrovmSuspendFailed"),
        (Some(Phase::Resuming), Phase::Running) => Some("MicrovmResumed"),
        (_, Phase::Terminated) => Some("MicrovmTerminated"),
        (_, Phase::Launching | Phase::Running | Phase::Suspending | Phase::Resuming | Phase::Terminating) => None,
    }
}

fn audit_event(record: &MicrovmRecord, name: &str, cause: Cause) -> AuditEvent {
    let region = &record.image_arn.region;
    let resource =
        AuditResource { arn: format!("arn:aws:lambda:{region}:{}:microvm:{}", record.account.0, record.id), kind: "AWS::Lambda::Microvm" };
    let details = json!({"microvmId": record.id, "cause": cause, "stateReason": record.state_reason});
    AuditEvent::by_the_service(name, region, &record.account, resource, details)
}

impl Core {
    /// Tells the stream what concerns the daemon itself.
    pub(crate) fn tell(&self, what: Happening) {
        self.teller.events.emit(Event { at: self.clock.now(), account: None, what });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_event_is_flat() {
        let what = Happening::Microvm {
            microvm: "microvm-1".into(),
            image: "arn".into(),
            from: Some(Phase::Running),
            to: Phase::Suspending,
            cause: Cause::IdlePolicy,
            reason: Some("why".into()),
        };
        let event = Event { at: UnixMillis(1), account: Some(AccountId("1".into())), what };
        let expected = json!({"event": "microvm", "account": "1", "microvm": "microvm-1", "image": "arn", "from": "RUNNING", "to": "SUSPENDING",
                              "cause": "idle-policy", "reason": "why"});
        assert_eq!(serde_json::to_value(event).unwrap(), expected);
    }
}
