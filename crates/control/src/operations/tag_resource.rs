//! TagResource: adds tags to an image. Network connectors of one's own, the other taggable thing, do not exist yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use emberbox_wire::arn::ImageArn;
use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lookup;
use crate::control::Core;
use crate::refusal::{Failure, Refusal};

/// AWS's limit for every service (documented).
const MAXIMUM_TAGS: usize = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    resource: String,
    tags: BTreeMap<String, String>,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let arn = resource(core, caller, &request.resource).await?;
    let mut tags = core.store.tags(&arn).await?;
    tags.extend(request.tags.clone());
    admit(tags.len())?;
    core.store.tag(&arn, &request.tags).await?;
    Ok(json!({}))
}

pub(crate) fn admit(count: usize) -> Result<(), Refusal> {
    if count > MAXIMUM_TAGS { Err(Refusal::TooManyTags(MAXIMUM_TAGS)) } else { Ok(()) }
}

/// The ARN of something of the caller's that has tags.
pub(crate) async fn resource(core: &Core, caller: &Caller, arn: &str) -> Result<String, Failure> {
    if arn.parse::<ImageArn>().is_err() {
        return Err(Refusal::NoResource(arn.to_owned()).into());
    }
    Ok(lookup::image(core, caller, arn).await?.arn.to_string())
}
