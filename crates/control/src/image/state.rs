//! Which state of an image follows which. Pure. Versions and builds follow their one build and need no table of their own.
//!
//! ```text
//!  CREATING ──built──▶ CREATED ───────┐                 ┌──▶ UPDATED ────────┐
//!      └─────failed──▶ CREATE_FAILED ─┴─update─▶ UPDATING ─▶ UPDATE_FAILED ──┤
//!                                        ▲                                   │
//!                                        └───────────────update──────────────┘
//!  any of the four settled ones, and DELETE_FAILED ──delete──▶ DELETING ──▶ DELETED | DELETE_FAILED
//!
//!  version and build: PENDING ──a place is free──▶ IN_PROGRESS ──▶ SUCCESSFUL | FAILED
//! ```

use emberbox_wire::microvms::{ImageState, VersionState};

/// What is done to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Update,
    Delete,
    Built,
    BuildFailed,
}

/// The state that follows, or `None` when the event is not allowed then.
pub(crate) fn next(state: ImageState, event: Event) -> Option<ImageState> {
    match state {
        ImageState::Creating => match event {
            Event::Built => Some(ImageState::Created),
            Event::BuildFailed => Some(ImageState::CreateFailed),
            Event::Update | Event::Delete => None,
        },
        ImageState::Updating => match event {
            Event::Built => Some(ImageState::Updated),
            Event::BuildFailed => Some(ImageState::UpdateFailed),
            Event::Update | Event::Delete => None,
        },
        ImageState::Created | ImageState::CreateFailed | ImageState::Updated | ImageState::UpdateFailed => match event {
            Event::Update => Some(ImageState::Updating),
            Event::Delete => Some(ImageState::Deleting),
            Event::Built | Event::BuildFailed => None,
        },
        ImageState::DeleteFailed => match event {
            Event::Delete => Some(ImageState::Deleting),
            Event::Update | Event::Built | Event::BuildFailed => None,
        },
        ImageState::Deleting | ImageState::Deleted => match event {
            Event::Update | Event::Delete | Event::Built | Event::BuildFailed => None,
        },
    }
}

/// Whether a version can be deleted in this state.
pub(crate) fn version_is_settled(state: VersionState) -> bool {
    match state {
        VersionState::Successful | VersionState::Failed | VersionState::DeleteFailed => true,
        VersionState::Pending | VersionState::InProgress | VersionState::Deleting | VersionState::Deleted => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [ImageState; 9] = [
        ImageState::Creating,
        ImageState::Created,
        ImageState::CreateFailed,
        ImageState::Updating,
        ImageState::Updated,
        ImageState::UpdateFailed,
        ImageState::Deleting,
        ImageState::DeleteFailed,
        ImageState::Deleted,
    ];

    #[test]
    fn a_build_ends_only_where_one_is_under_way_and_nothing_else_is_allowed_there() {
        for state in STATES {
            let building = matches!(state, ImageState::Creating | ImageState::Updating);
            assert_eq!(next(state, Event::Built).is_some(), building, "{state:?}");
            assert_eq!(next(state, Event::BuildFailed).is_some(), building, "{state:?}");
            assert!(!building || (next(state, Event::Update).is_none() && next(state, Event::Delete).is_none()));
        }
    }

    #[test]
    fn what_is_being_deleted_is_left_alone() {
        for event in [Event::Update, Event::Delete, Event::Built, Event::BuildFailed] {
            assert_eq!(next(ImageState::Deleting, event), None);
            assert_eq!(next(ImageState::Deleted, event), None);
        }
        assert_eq!(next(ImageState::DeleteFailed, Event::Delete), Some(ImageState::Deleting));
    }
}
