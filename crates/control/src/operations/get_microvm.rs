//! GetMicrovm: one MicroVM, terminated ones included (documented).

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
    microvm_identifier: String,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let microvm = lookup::microvm(core, caller, &request.microvm_identifier).await?;
    Ok(views::microvm(&core.config.endpoint, &microvm))
}
