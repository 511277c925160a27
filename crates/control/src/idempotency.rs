//! Client tokens of requests: the same token and parameters replay the first answer (documented).

use emberbox_store::{ClientToken, Commit};
use emberbox_wire::caller::Caller;
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::control::Core;
use crate::refusal::{Failure, Refusal};

/// The token of a request, if it brought one. Parameters are kept as a keyed digest: they may hold secrets.
pub(crate) fn client_token(core: &Core, caller: &Caller, operation: &'static str, input: &Value) -> Option<ClientToken> {
    // `lambda-core` writes its members in capitals.
    let token = input.get("clientToken").or_else(|| input.get("ClientToken"))?.as_str()?.to_owned();
    let mut canonical = String::new();
    write_canonical(input, &mut canonical);
    let mut mac = Hmac::<Sha256>::new_from_slice(&core.secret).expect("HMAC takes a key of any length");
    mac.update(canonical.as_bytes());
    let digest = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Some(ClientToken { account: caller.account.clone(), operation, token, digest })
}

/// The first answer to a token that has been used before.
pub(crate) async fn earlier_answer(core: &Core, token: Option<&ClientToken>) -> Result<Option<Value>, Failure> {
    let Some(token) = token else { return Ok(None) };
    match core.store.replay(token).await? {
        Some(Commit::Replayed(answer)) => Ok(Some(answer)),
        Some(Commit::TokenReused) => Err(Refusal::TokenReused.into()),
        Some(Commit::Done | Commit::Raced | Commit::OverQuota(_) | Commit::NoRoom) | None => Ok(None),
    }
}

/// What a write that neither did its work nor lost a race means for the caller.
pub(crate) fn otherwise(core: &Core, commit: Commit) -> Result<Value, Failure> {
    match commit {
        Commit::Replayed(answer) => Ok(answer),
        Commit::TokenReused => Err(Refusal::TokenReused.into()),
        Commit::OverQuota(quota) => Err(Refusal::over_quota(&core.config.limits, quota).into()),
        Commit::NoRoom => Err(Refusal::NoCapacity(core.config.limits.host_memory_mib).into()),
        Commit::Done | Commit::Raced => Err(Failure::Contended),
    }
}

/// JSON with its members in order, whatever order the map keeps.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut keys: Vec<_> = members.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                write_canonical(&members[key], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                write_canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}
