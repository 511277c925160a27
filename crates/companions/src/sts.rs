//! STS: `GetCallerIdentity`, in the query protocol. Signatures and the XML of errors are `emberbox-api`'s; no credentials are ever issued here.

use std::collections::BTreeMap;

use async_trait::async_trait;
use emberbox_api::QueryService;
use emberbox_api::envelope::escape_xml;
use emberbox_wire::caller::Caller;
use emberbox_wire::error::{ApiError, ErrorCode};

const VERSION: &str = "2011-06-15";

#[derive(Debug, Clone, Copy, Default)]
pub struct Sts;

#[async_trait]
impl QueryService for Sts {
    async fn call(&self, caller: &Caller, parameters: &BTreeMap<String, String>, request_id: &str) -> Result<String, ApiError> {
        let action = parameters.get("Action").map(String::as_str).unwrap_or_default();
        match action {
            "GetCallerIdentity" => Ok(caller_identity(caller, request_id)),
            _ => {
                let version = parameters.get("Version").map_or(VERSION, String::as_str);
                let message =
                    format!("Could not find operation {action} for version {version}. Emberbox's STS has GetCallerIdentity only.");
                Err(ApiError::new(ErrorCode::UnknownOperation, message))
            }
        }
    }
}

fn caller_identity(caller: &Caller, request_id: &str) -> String {
    format!(
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/{VERSION}/\"><GetCallerIdentityResult><Arn>{}</Arn><UserId>{}</UserId>\
         <Account>{}</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>\
         </GetCallerIdentityResponse>",
        escape_xml(&caller.arn),
        escape_xml(&caller.user_id),
        escape_xml(&caller.account.0),
    )
}
