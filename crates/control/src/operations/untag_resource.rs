//! UntagResource: removes tags from an image or a network connector; those that are not there are no error.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::{Value, json};

use super::tag_resource::{admit_key, resource};
use crate::control::Core;
use crate::refusal::Failure;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    resource: String,
    tag_keys: Vec<String>,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let arn = resource(core, caller, &request.resource).await?;
    request.tag_keys.iter().try_for_each(|key| admit_key(key))?;
    core.store.untag(&arn, &request.tag_keys).await?;
    Ok(json!({}))
}
