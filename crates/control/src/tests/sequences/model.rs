//! What the service's documentation says of MicroVMs and images, as little as possible of it twice: which state may follow which, and what a client that
//! is alone must see.

use emberbox_store::testing::StateChange;

/// Documented: `PENDING → RUNNING → SUSPENDING → SUSPENDED → (resume) RUNNING; any → TERMINATING → TERMINATED`. RESUMING is ours, and shown as SUSPENDED.
const MICROVM: &[(&str, &str)] = &[
    ("LAUNCHING", "RUNNING"),
    ("RUNNING", "SUSPENDING"),
    ("SUSPENDING", "SUSPENDED"),
    ("SUSPENDED", "RESUMING"),
    ("RESUMING", "RUNNING"),
    // What fails leaves it as it was.
    ("SUSPENDING", "RUNNING"),
    ("RESUMING", "SUSPENDED"),
    ("LAUNCHING", "TERMINATING"),
    ("RUNNING", "TERMINATING"),
    ("SUSPENDING", "TERMINATING"),
    ("SUSPENDED", "TERMINATING"),
    ("RESUMING", "TERMINATING"),
    ("TERMINATING", "TERMINATED"),
];

/// Documented: `CREATING → CREATED | CREATE_FAILED, then UPDATING → UPDATED | UPDATE_FAILED`, and the model's words for deletion.
const IMAGE: &[(&str, &str)] = &[
    ("CREATING", "CREATED"),
    ("CREATING", "CREATE_FAILED"),
    ("CREATED", "UPDATING"),
    ("CREATE_FAILED", "UPDATING"),
    ("UPDATED", "UPDATING"),
    ("UPDATE_FAILED", "UPDATING"),
    ("UPDATING", "UPDATED"),
    ("UPDATING", "UPDATE_FAILED"),
    ("CREATED", "DELETING"),
    ("CREATE_FAILED", "DELETING"),
    ("UPDATED", "DELETING"),
    ("UPDATE_FAILED", "DELETING"),
    ("DELETE_FAILED", "DELETING"),
    ("DELETING", "DELETED"),
    ("DELETING", "DELETE_FAILED"),
];

/// Documented: `PENDING → IN_PROGRESS → SUCCESSFUL | FAILED`; versions are deleted alone or with their image.
const VERSION: &[(&str, &str)] = &[
    ("PENDING", "IN_PROGRESS"),
    ("IN_PROGRESS", "SUCCESSFUL"),
    ("IN_PROGRESS", "FAILED"),
    ("SUCCESSFUL", "DELETING"),
    ("FAILED", "DELETING"),
    ("DELETE_FAILED", "DELETING"),
    ("DELETING", "DELETED"),
    ("DELETING", "DELETE_FAILED"),
    ("SUCCESSFUL", "DELETED"),
    ("FAILED", "DELETED"),
    ("DELETE_FAILED", "DELETED"),
];

const BUILD: &[(&str, &str)] = &[("PENDING", "IN_PROGRESS"), ("IN_PROGRESS", "SUCCESSFUL"), ("IN_PROGRESS", "FAILED")];

/// Panics at a change that no arrow allows.
pub(super) fn check(change: &StateChange) {
    let (first, arrows) = match change.record.as_str() {
        "microvms" => ("LAUNCHING", MICROVM),
        "images" => ("CREATING", IMAGE),
        "image_versions" => ("PENDING", VERSION),
        "builds" => ("PENDING", BUILD),
        other => panic!("no model of {other}"),
    };
    match (change.from.as_deref(), change.to.as_deref()) {
        (None, Some(to)) => assert_eq!(to, first, "{change:?}"),
        (Some(from), Some(to)) => assert!(arrows.contains(&(from, to)), "no arrow: {change:?}"),
        (_, None) => panic!("a record is gone: {change:?}"),
    }
}

/// Whether what was seen as `before` may be seen as `after` later: by any number of arrows between states as the API shows them.
pub(super) fn may_be_seen_after(before: &str, after: &str) -> bool {
    let rank = |state: &str| match state {
        "PENDING" => 0,
        "RUNNING" | "SUSPENDING" | "SUSPENDED" => 1,
        "TERMINATING" => 2,
        "TERMINATED" => 3,
        other => panic!("no state of a MicroVM: {other}"),
    };
    rank(before) <= rank(after)
}

/// A MicroVM when nothing is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    Running,
    Suspended,
    Terminated,
}

impl Rest {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Suspended => "SUSPENDED",
            Self::Terminated => "TERMINATED",
        }
    }

    /// Where SuspendMicrovm leads, `None` where it is a conflict; `fails` is that the host cannot.
    pub(super) fn suspended(self, fails: bool) -> Option<Self> {
        match (self, fails) {
            (Self::Running, false) | (Self::Suspended, _) => Some(Self::Suspended),
            (Self::Running, true) => Some(Self::Running),
            (Self::Terminated, _) => None,
        }
    }

    pub(super) fn resumed(self, fails: bool) -> Option<Self> {
        match (self, fails) {
            (Self::Suspended, true) => Some(Self::Suspended),
            (Self::Running, _) | (Self::Suspended, false) => Some(Self::Running),
            (Self::Terminated, _) => None,
        }
    }
}
