//! CreateMicrovmImage: a new image and its version 1.0, built in the background.

use std::sync::Arc;

use emberbox_store::{Commit, ImageId, ImageRecord, NewImage};
use emberbox_wire::arn::ImageArn;
use emberbox_wire::caller::Caller;
use emberbox_wire::ids::ImageVersion;
use emberbox_wire::microvms::{CreateMicrovmImageRequest, ImageState};
use serde_json::Value;
use uuid::Uuid;

use super::definition;
use crate::control::Core;
use crate::image::{driver, managed};
use crate::refusal::{Failure, Refusal};
use crate::views::{self, LatestVersions};
use crate::{connectors, idempotency, idle};

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let token = idempotency::client_token(core, caller, "CreateMicrovmImage", &input);
    if let Some(answer) = idempotency::earlier_answer(core, token.as_ref()).await? {
        return Ok(answer);
    }
    let request: CreateMicrovmImageRequest = serde_json::from_value(input)?;
    connectors::refuse_customers(core, caller, request.definition.egress_network_connectors.as_deref()).await?;
    let region = &core.config.region;
    let definition = definition::admit(region, &managed::arns(region, &*core.host), request.definition)?;
    let tags = request.tags.unwrap_or_default();
    super::tag_resource::admit(&tags)?;
    idle::admit(&tags)?;

    let now = core.clock.now();
    let arn = ImageArn { region: region.clone(), account: caller.account.clone(), name: request.name };
    core.access.passable(&caller.account, &definition.build_role_arn, &arn.to_string()).await?;
    let image = ImageRecord { id: ImageId(Uuid::new_v4()), arn, state: ImageState::Creating, created_at: now, updated_at: now };
    let (version, build) = definition::new_version(image.id, ImageVersion::FIRST, definition, now);
    let answer = views::image_with_version(&image, LatestVersions::default(), &version, &tags)?;
    let new = NewImage { image: &image, version: &version, build: &build, tags: &tags };
    match core.store.create_image(&new, core.config.limits.quotas.images, token.as_ref(), &answer).await? {
        Commit::Done => {
            driver::build(core, image, version, build);
            Ok(answer)
        }
        Commit::Raced => Err(Refusal::ImageExists(image.arn.name).into()),
        commit => idempotency::otherwise(core, commit),
    }
}
