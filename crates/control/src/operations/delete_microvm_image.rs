//! DeleteMicrovmImage: an image with all its versions, unless a MicroVM of it lives (documented). Deleting it again succeeds (documented).

use std::sync::Arc;

use emberbox_store::{Commit, ImageRecord};
use emberbox_wire::caller::Caller;
use emberbox_wire::microvms::ImageState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lookup;
use crate::control::Core;
use crate::image::driver;
use crate::image::state::{Event, next};
use crate::refusal::{Failure, Refusal, word};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    image_identifier: String,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let image = lookup::image_or_tombstone(core, caller, &request.image_identifier).await?;
    let answer = |state: ImageState| json!({"imageIdentifier": image.arn.to_string(), "state": state});
    if matches!(image.state, ImageState::Deleting | ImageState::Deleted) {
        return Ok(answer(image.state));
    }
    admit(&image)?;
    match core.store.begin_image_delete(image.id, image.state, core.clock.now()).await? {
        Commit::Done => {
            let answer = answer(ImageState::Deleting);
            driver::delete_image(core, image);
            Ok(answer)
        }
        Commit::Raced | Commit::Replayed(_) | Commit::TokenReused | Commit::OverQuota(_) | Commit::NoRoom => {
            match core.store.image(image.id).await?.map(|now| now.state) {
                // Another delete came first.
                Some(now @ (ImageState::Deleting | ImageState::Deleted)) => Ok(answer(now)),
                now => Err(refusal(core, &image, now.unwrap_or(image.state)).await?.into()),
            }
        }
    }
}

fn admit(image: &ImageRecord) -> Result<ImageState, Refusal> {
    next(image.state, Event::Delete).ok_or_else(|| Refusal::ImageNotDeletable(word(image.state)))
}

/// Which of its conditions the deletion did not meet.
async fn refusal(core: &Core, image: &ImageRecord, now: ImageState) -> Result<Refusal, Failure> {
    let live = core.store.count_live_microvms(image.id, None).await?;
    Ok(if live > 0 { Refusal::ImageInUse } else { Refusal::ImageNotDeletable(word(now)) })
}
