//! CreateMicrovmShellAuthToken: refused without SHELL_INGRESS (observed), and said to be missing with it until shells are built.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::Value;

use super::create_microvm_auth_token::{admit_expiration, admit_life};
use super::lookup;
use crate::connectors;
use crate::control::Core;
use crate::refusal::{Failure, Refusal};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    microvm_identifier: String,
    expiration_in_minutes: u32,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    admit_expiration(request.expiration_in_minutes)?;
    let microvm = lookup::microvm(core, caller, &request.microvm_identifier).await?;
    admit_life(&microvm)?;
    if !connectors::offer_shell(&core.config.region, &microvm.settings.ingress_network_connectors) {
        return Err(Refusal::NoShellIngress.into());
    }
    Err(Refusal::ShellNotBuilt.into())
}
