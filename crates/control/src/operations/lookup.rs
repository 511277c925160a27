//! Finding what a request names. What belongs to another account looks absent.

use emberbox_store::{ImageRecord, MicrovmRecord, Phase, VersionRecord};
use emberbox_wire::arn::ImageArn;
use emberbox_wire::caller::Caller;
use emberbox_wire::ids::{ImageVersion, MicrovmId};
use emberbox_wire::microvms::{ImageState, VersionState};

use crate::control::Core;
use crate::microvm::registry::{Handle, Request, RequestError};
use crate::microvm::state::Conflict;
use crate::refusal::{Failure, Refusal};
use crate::views::LatestVersions;

/// The caller's image, its tombstone included.
pub(crate) async fn image_or_tombstone(core: &Core, caller: &Caller, identifier: &str) -> Result<ImageRecord, Failure> {
    let arn: ImageArn = identifier.parse().map_err(Refusal::from)?;
    let absent = || Refusal::NoImage(identifier.to_owned());
    if arn.account != caller.account {
        return Err(absent().into());
    }
    Ok(core.store.image_by_arn(&arn).await?.ok_or_else(absent)?)
}

/// The caller's image, unless it is deleted.
pub(crate) async fn image(core: &Core, caller: &Caller, identifier: &str) -> Result<ImageRecord, Failure> {
    let image = image_or_tombstone(core, caller, identifier).await?;
    match image.state {
        ImageState::Deleted => Err(Refusal::NoImage(identifier.to_owned()).into()),
        ImageState::Creating
        | ImageState::Created
        | ImageState::CreateFailed
        | ImageState::Updating
        | ImageState::Updated
        | ImageState::UpdateFailed
        | ImageState::Deleting
        | ImageState::DeleteFailed => Ok(image),
    }
}

/// A version of an image, its tombstone included.
pub(crate) async fn version_or_tombstone(core: &Core, image: &ImageRecord, version: &str) -> Result<VersionRecord, Failure> {
    let absent = || Refusal::NoVersion { arn: image.arn.to_string(), version: version.to_owned() };
    let number: ImageVersion = version.parse().map_err(|_| absent())?;
    Ok(core.store.version(image.id, number).await?.ok_or_else(absent)?)
}

/// A version of an image, unless it is deleted.
pub(crate) async fn version(core: &Core, image: &ImageRecord, version: &str) -> Result<VersionRecord, Failure> {
    let record = version_or_tombstone(core, image, version).await?;
    if record.state == VersionState::Deleted {
        return Err(Refusal::NoVersion { arn: image.arn.to_string(), version: version.to_owned() }.into());
    }
    Ok(record)
}

pub(crate) async fn latest_versions(core: &Core, image: &ImageRecord) -> Result<LatestVersions, Failure> {
    let active = core.store.latest_active_version(image.id).await?.map(|version| version.version);
    Ok(LatestVersions { active, failed: core.store.latest_failed_version(image.id).await? })
}

/// The caller's MicroVM, terminated ones included.
pub(crate) async fn microvm(core: &Core, caller: &Caller, identifier: &str) -> Result<MicrovmRecord, Failure> {
    let absent = || Refusal::NoMicrovm(identifier.to_owned());
    let id: MicrovmId = identifier.parse().map_err(|_| absent())?;
    let record = core.store.microvm(id).await?.ok_or_else(absent)?;
    if record.account != caller.account {
        return Err(absent().into());
    }
    Ok(record)
}

/// What has become of a change that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is on record, or was so already.
    Recorded,
    /// The MicroVM is TERMINATED.
    Terminated,
}

/// Asks the task of the caller's MicroVM for a change.
pub(crate) async fn ask(core: &Core, caller: &Caller, identifier: &str, request: Request) -> Result<Asked, Failure> {
    let absent = || Refusal::NoMicrovm(identifier.to_owned());
    let id: MicrovmId = identifier.parse().map_err(|_| absent())?;
    let Some(handle) = living(core, caller, id)? else {
        return without_task(core, caller, identifier).await;
    };
    match handle.ask(request).await {
        Ok(()) => Ok(Asked::Recorded),
        Err(RequestError::Refused(conflict)) => Err(Refusal::Microvm { microvm: id, conflict }.into()),
        Err(RequestError::Gone) if core.stop.is_cancelled() => Err(Failure::Stopping),
        Err(RequestError::Gone) => without_task(core, caller, identifier).await,
        Err(RequestError::NoRoom) => Err(Refusal::NoRoomToResume(id).into()),
        Err(RequestError::NotRecorded) => Err(Failure::NotRecorded),
        Err(RequestError::DiskFull) => Err(Failure::DiskFull),
    }
}

/// A MicroVM without a task is TERMINATED, or is about to have one again.
async fn without_task(core: &Core, caller: &Caller, identifier: &str) -> Result<Asked, Failure> {
    match microvm(core, caller, identifier).await?.phase {
        Phase::Terminated => Ok(Asked::Terminated),
        _ => Err(Failure::Contended),
    }
}

fn living(core: &Core, caller: &Caller, id: MicrovmId) -> Result<Option<Handle>, Failure> {
    match core.microvms.get(id) {
        Some(handle) if handle.account != caller.account => Err(Refusal::NoMicrovm(id.to_string()).into()),
        found => Ok(found),
    }
}

/// A change that a terminated MicroVM does not take.
pub(crate) fn unless_terminated(asked: Asked, identifier: &str) -> Result<(), Failure> {
    match (asked, identifier.parse()) {
        (Asked::Recorded, _) => Ok(()),
        (Asked::Terminated, Ok(microvm)) => Err(Refusal::Microvm { microvm, conflict: Conflict::Terminated }.into()),
        (Asked::Terminated, Err(_)) => Err(Refusal::NoMicrovm(identifier.to_owned()).into()),
    }
}
