//! UpdateMicrovmImage: the next version of an image, from the whole of its definition (PUT semantics), built in the background.

use std::collections::BTreeMap;
use std::sync::Arc;

use emberbox_store::{Commit, ImageRecord, VersionChange};
use emberbox_wire::caller::Caller;
use emberbox_wire::ids::ImageVersion;
use emberbox_wire::microvms::{ImageDefinition, ImageState};
use serde::Deserialize;
use serde_json::Value;

use super::{definition, lookup};
use crate::control::Core;
use crate::image::state::{Event, next};
use crate::image::{driver, managed};
use crate::refusal::{Failure, Refusal};
use crate::{connectors, idempotency, views};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    image_identifier: String,
    #[serde(flatten)]
    definition: ImageDefinition,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let token = idempotency::client_token(core, caller, "UpdateMicrovmImage", &input);
    if let Some(answer) = idempotency::earlier_answer(core, token.as_ref()).await? {
        return Ok(answer);
    }
    let request: Request = serde_json::from_value(input)?;
    let image = lookup::image(core, caller, &request.image_identifier).await?;
    let updating = admit(&image)?;
    connectors::refuse_customers(core, caller, request.definition.egress_network_connectors.as_deref()).await?;
    let region = &core.config.region;
    let definition = definition::admit(region, &managed::arns(region, &*core.host), request.definition)?;
    core.access.passable(&caller.account, &definition.build_role_arn, &image.arn.to_string()).await?;

    let now = core.clock.now();
    let number = core.store.newest_version(image.id).await?.map_or(ImageVersion::FIRST, ImageVersion::next);
    let (version, build) = definition::new_version(image.id, number, definition, now);
    let changed = ImageRecord { state: updating, updated_at: now, ..image.clone() };
    // The answer has no member for tags, unlike CreateMicrovmImage's (model).
    let answer = views::image_with_version(&changed, lookup::latest_versions(core, &image).await?, &version, &BTreeMap::new())?;
    let change = VersionChange { version: &version, build: &build, from: image.state, to: updating };
    match core.store.add_version(&change, core.config.limits.quotas.versions_per_image, token.as_ref(), &answer).await? {
        Commit::Done => {
            driver::build(core, changed, version, build);
            Ok(answer)
        }
        // Another update or a delete came first.
        Commit::Raced => Err(Refusal::image_busy(&lookup::image(core, caller, &request.image_identifier).await?).into()),
        commit => idempotency::otherwise(core, commit),
    }
}

fn admit(image: &ImageRecord) -> Result<ImageState, Refusal> {
    next(image.state, Event::Update).ok_or_else(|| Refusal::image_busy(image))
}
