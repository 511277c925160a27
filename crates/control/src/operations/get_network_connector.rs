//! GetNetworkConnector: a connector as it is now, or one version of it.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::Value;

use super::connector_lookup as lookup;
use crate::connector::views;
use crate::control::Core;
use crate::refusal::Failure;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    identifier: String,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let named = lookup::connector(core, caller, &request.identifier).await?;
    let version = lookup::version(core, &named.record, named.version.unwrap_or(named.record.version)).await?;
    Ok(views::connector(&named.record, &version, named.version.is_some())?)
}
