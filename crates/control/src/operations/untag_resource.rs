//! UntagResource: removes tags from an image; those that are not there are no error.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::{Value, json};

use super::tag_resource::resource;
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
    core.store.untag(&arn, &request.tag_keys).await?;
    Ok(json!({}))
}
