//! TagResource: adds tags to an image or a network connector.

use std::collections::BTreeMap;
use std::sync::Arc;

use emberbox_wire::arn::ImageArn;
use emberbox_wire::caller::Caller;
use emberbox_wire::connectors::ConnectorArn;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{connector_lookup, lookup};
use crate::control::Core;
use crate::idle;
use crate::limits::MAXIMUM_TAGS;
use crate::refusal::{Failure, Refusal};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    resource: String,
    tags: BTreeMap<String, String>,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let arn = resource(core, caller, &request.resource).await?;
    admit(&request.tags)?;
    idle::admit(&request.tags)?;
    match core.store.tag(&arn, &request.tags, MAXIMUM_TAGS).await? {
        true => Ok(json!({})),
        false => Err(Refusal::TooManyTags(MAXIMUM_TAGS).into()),
    }
}

pub(crate) fn admit(tags: &BTreeMap<String, String>) -> Result<(), Refusal> {
    tags.keys().try_for_each(|key| admit_key(key))?;
    if tags.len() > MAXIMUM_TAGS { Err(Refusal::TooManyTags(MAXIMUM_TAGS)) } else { Ok(()) }
}

/// Keys that begin with `aws:`, in whatever case, are AWS's own (documented).
pub(crate) fn admit_key(key: &str) -> Result<(), Refusal> {
    let reserved = key.get(..4).is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"));
    if reserved { Err(Refusal::ReservedTag(key.to_owned())) } else { Ok(()) }
}

/// The ARN of something of the caller's that has tags.
pub(crate) async fn resource(core: &Core, caller: &Caller, arn: &str) -> Result<String, Failure> {
    let absent = || Refusal::NoResource(arn.to_owned());
    if arn.parse::<ImageArn>().is_ok() {
        return Ok(lookup::image(core, caller, arn).await?.arn.to_string());
    }
    match arn.parse::<ConnectorArn>() {
        Ok(connector) if connector.version.is_none() => Ok(connector_lookup::connector(core, caller, arn).await?.record.arn.to_string()),
        Ok(_) | Err(_) => Err(absent().into()),
    }
}
