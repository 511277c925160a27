//! TerminateMicrovm: answered when TERMINATING is on record. Terminating a terminated one succeeds (documented).

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lookup;
use crate::control::Core;
use crate::microvm::registry;
use crate::refusal::Failure;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    microvm_identifier: String,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    lookup::ask(core, caller, &request.microvm_identifier, registry::Request::Terminate).await?;
    Ok(json!({}))
}
