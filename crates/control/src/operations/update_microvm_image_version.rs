//! UpdateMicrovmImageVersion: a version can be launched (ACTIVE) or not (INACTIVE).

use std::sync::Arc;

use emberbox_store::{Commit, ImageRecord, VersionRecord};
use emberbox_wire::caller::Caller;
use emberbox_wire::microvms::{ImageState, VersionStatus};
use serde::Deserialize;
use serde_json::Value;

use super::lookup;
use crate::control::Core;
use crate::refusal::{Failure, Refusal};
use crate::views;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    image_identifier: String,
    image_version: String,
    status: VersionStatus,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let image = lookup::image(core, caller, &request.image_identifier).await?;
    admit(&image)?;
    let version = lookup::version(core, &image, &request.image_version).await?;
    let now = core.clock.now();
    match core.store.set_version_status(image.id, version.version, request.status, now).await? {
        Commit::Done => answer(&image, VersionRecord { status: request.status, updated_at: now, ..version }),
        // What cannot be launched is INACTIVE whatever is asked.
        Commit::Raced if request.status == version.status => answer(&image, version),
        Commit::Raced | Commit::Replayed(_) | Commit::TokenReused | Commit::OverQuota(_) | Commit::NoRoom => {
            Err(Refusal::version_busy(&image, &version).into())
        }
    }
}

/// Observed: not while the image is built or deleted.
fn admit(image: &ImageRecord) -> Result<(), Refusal> {
    match image.state {
        ImageState::Creating | ImageState::Updating | ImageState::Deleting | ImageState::Deleted => Err(Refusal::image_busy(image)),
        ImageState::Created | ImageState::CreateFailed | ImageState::Updated | ImageState::UpdateFailed | ImageState::DeleteFailed => {
            Ok(())
        }
    }
}

fn answer(image: &ImageRecord, version: VersionRecord) -> Result<Value, Failure> {
    Ok(views::version(&image.arn, &version)?)
}
