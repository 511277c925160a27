//! DeleteMicrovmImageVersion: one version, unless it is the last (documented) or a MicroVM of it lives. Deleting it again succeeds (documented).

use std::sync::Arc;

use emberbox_store::{Commit, ImageRecord, VersionRecord};
use emberbox_wire::caller::Caller;
use emberbox_wire::microvms::VersionState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lookup;
use crate::control::Core;
use crate::image::driver;
use crate::image::state::version_is_settled;
use crate::refusal::{Failure, Refusal};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    image_identifier: String,
    image_version: String,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let image = lookup::image_or_tombstone(core, caller, &request.image_identifier).await?;
    let version = lookup::version_or_tombstone(core, &image, &request.image_version).await?;
    let answer = |state: VersionState| json!({"imageIdentifier": image.arn.to_string(), "imageVersion": version.version, "state": state});
    if matches!(version.state, VersionState::Deleting | VersionState::Deleted) {
        return Ok(answer(version.state));
    }
    if !version_is_settled(version.state) {
        return Err(Refusal::version_busy(&image, &version).into());
    }
    match core.store.begin_version_delete(&version, version.state, core.clock.now()).await? {
        Commit::Done => {
            let answer = answer(VersionState::Deleting);
            driver::delete_version(core, version);
            Ok(answer)
        }
        Commit::Raced | Commit::Replayed(_) | Commit::TokenReused | Commit::OverQuota(_) | Commit::NoRoom => {
            let now = core.store.version(image.id, version.version).await?.map_or(version.state, |now| now.state);
            match now {
                // Another delete came first.
                VersionState::Deleting | VersionState::Deleted => Ok(answer(now)),
                _ => Err(refusal(core, &image, &version, now).await?.into()),
            }
        }
    }
}

/// Which of its conditions the deletion did not meet.
async fn refusal(core: &Core, image: &ImageRecord, version: &VersionRecord, now: VersionState) -> Result<Refusal, Failure> {
    let (arn, number) = (image.arn.to_string(), version.version.to_string());
    if core.store.count_live_microvms(image.id, Some(version.version)).await? > 0 {
        return Ok(Refusal::VersionInUse { arn, version: number });
    }
    Ok(if now == version.state { Refusal::LastVersion { arn, version: number } } else { Refusal::version_busy(image, version) })
}
