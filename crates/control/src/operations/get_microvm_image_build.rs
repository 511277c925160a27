//! GetMicrovmImageBuild: one build, why it failed, and what it made.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use emberbox_wire::ids::BuildId;
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
    build_id: BuildId,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let image = lookup::image(core, caller, &request.image_identifier).await?;
    let version = lookup::version(core, &image, &request.image_version).await?;
    let build = core.store.build(image.id, version.version, &request.build_id).await?;
    let build = build.ok_or_else(|| Refusal::NoBuild(request.build_id.to_string()))?;
    Ok(views::build(&image.arn, &build))
}
