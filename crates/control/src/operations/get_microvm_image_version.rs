//! GetMicrovmImageVersion: one version with what it was made from.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::Value;

use super::lookup;
use crate::control::Core;
use crate::refusal::Failure;
use crate::views;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    image_identifier: String,
    image_version: String,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let image = lookup::image(core, caller, &request.image_identifier).await?;
    let version = lookup::version(core, &image, &request.image_version).await?;
    Ok(views::version(&image.arn, &version)?)
}
