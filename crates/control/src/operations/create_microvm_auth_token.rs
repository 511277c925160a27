//! CreateMicrovmAuthToken: a credential for some ports of one MicroVM, for at most an hour (documented).

use std::sync::Arc;
use std::time::Duration;

use emberbox_store::{MicrovmRecord, Phase};
use emberbox_wire::caller::Caller;
use emberbox_wire::microvms::{CreateMicrovmAuthTokenRequest, PortSpecification};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::lookup;
use crate::connectors;
use crate::control::Core;
use crate::refusal::{Failure, Refusal};
use crate::token::{Claims, Purpose};

/// Documented.
const MAXIMUM_MINUTES: u32 = 60;
/// Of `AuthTokenValue` in the service model.
const MAXIMUM_TOKEN_BYTES: usize = 8000;
/// The header that carries the token (documented).
const HEADER: &str = "X-aws-proxy-auth";

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: CreateMicrovmAuthTokenRequest = serde_json::from_value(input)?;
    admit_expiration(request.expiration_in_minutes)?;
    admit_ports(&request.allowed_ports)?;
    let microvm = lookup::microvm(core, caller, &request.microvm_identifier).await?;
    admit_microvm(&core.config.region, &microvm)?;
    let now = OffsetDateTime::from_unix_timestamp(core.clock.now().0 / 1000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let lifetime = Duration::from_secs(u64::from(request.expiration_in_minutes) * 60);
    let token = core.tokens.mint(&Claims::new(microvm.id, Purpose::Traffic, request.allowed_ports, now, lifetime));
    if token.len() > MAXIMUM_TOKEN_BYTES {
        return Err(Refusal::TooManyPorts.into());
    }
    Ok(json!({"authToken": {HEADER: token}}))
}

pub(crate) fn admit_expiration(minutes: u32) -> Result<(), Refusal> {
    if minutes > MAXIMUM_MINUTES {
        let constraint = "have value less than or equal to 60";
        return Err(Refusal::Constraint { member: "expirationInMinutes", value: minutes.to_string(), constraint });
    }
    Ok(())
}

fn admit_ports(ports: &[PortSpecification]) -> Result<(), Refusal> {
    for specification in ports {
        match specification {
            PortSpecification::Range { start_port, end_port } if start_port > end_port => {
                let constraint = "have a startPort less than or equal to its endPort";
                return Err(Refusal::Constraint { member: "allowedPorts", value: format!("{start_port}-{end_port}"), constraint });
            }
            PortSpecification::Port(_) | PortSpecification::Range { .. } | PortSpecification::AllPorts {} => {}
        }
    }
    Ok(())
}

/// A token for what has ended, or is about to, would open nothing.
pub(crate) fn admit_life(microvm: &MicrovmRecord) -> Result<(), Refusal> {
    match microvm.phase {
        Phase::Terminating | Phase::Terminated => Err(Refusal::TokenForTerminated(microvm.id)),
        Phase::Launching | Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming => Ok(()),
    }
}

fn admit_microvm(region: &str, microvm: &MicrovmRecord) -> Result<(), Refusal> {
    admit_life(microvm)?;
    if !connectors::serve_http(region, &microvm.settings.ingress_network_connectors) {
        return Err(Refusal::NoHttpIngress);
    }
    Ok(())
}
