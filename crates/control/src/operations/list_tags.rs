//! ListTags: the tags of an image or a network connector.

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
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let arn = resource(core, caller, &request.resource).await?;
    Ok(json!({"Tags": core.store.tags(&arn).await?}))
}
