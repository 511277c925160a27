//! STS in the query protocol: who one is, and temporary credentials. Signatures are `emberbox-api`'s, the credentials `emberbox_control::access`'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use emberbox_api::{QueryError, QueryService};
use emberbox_control::access::policy::Document;
use emberbox_control::access::{Access, AssumeRole, AssumeRoleError, Issued, Question, iso8601};
use emberbox_wire::caller::{Caller, Principal};

use crate::query::{Parameters, Text, Xml, internal, refused, respond, unknown_action};

const VERSION: &str = "2011-06-15";
const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
/// Of AssumeRole, when the caller does not say (documented).
const ASSUMED_SECONDS: u32 = 3600;
const ASSUMED_RANGE: std::ops::RangeInclusive<u32> = 900..=43_200;
/// Of GetSessionToken (documented); of a root's, an hour at most.
const SESSION_SECONDS: u32 = 43_200;
const SESSION_RANGE: std::ops::RangeInclusive<u32> = 900..=129_600;
const ROOT_SECONDS: u32 = 3600;
/// A session policy's share of a token, of which AWS allows 2048 characters (documented).
const MAX_POLICY: usize = 2048;

pub struct Sts(Arc<Access>);

impl Sts {
    pub fn new(access: Arc<Access>) -> Self {
        Self(access)
    }
}

#[async_trait]
impl QueryService for Sts {
    fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    async fn call(&self, caller: &Caller, parameters: &BTreeMap<String, String>, request_id: &str) -> Result<String, QueryError> {
        let action = parameters.get("Action").map(String::as_str).unwrap_or_default();
        let parameters = Parameters(parameters);
        let result = match action {
            // Needs no permission (documented).
            "GetCallerIdentity" => caller_identity(caller),
            "AssumeRole" => self.assume_role(caller, parameters).await?,
            "GetSessionToken" => self.session_token(caller, parameters).await?,
            _ => {
                let version = parameters.0.get("Version").map_or(VERSION, String::as_str);
                return Err(unknown_action(action, version, "Emberbox's STS has AssumeRole, GetCallerIdentity and GetSessionToken."));
            }
        };
        Ok(respond(action, NAMESPACE, request_id, &result))
    }
}

impl Sts {
    async fn assume_role(&self, caller: &Caller, parameters: Parameters<'_>) -> Result<Xml, QueryError> {
        let policy = parameters.optional("Policy", Text::anything(1, MAX_POLICY))?;
        if let Some(policy) = policy {
            Document::identity(policy).map_err(|error| QueryError::new("MalformedPolicyDocument", 400, error.to_string()))?;
        }
        not_built(
            parameters,
            &["PolicyArns.member.1.arn", "Tags.member.1.Key", "SerialNumber", "SourceIdentity", "ProvidedContexts.member.1.ProviderArn"],
        )?;
        let asked = AssumeRole {
            role_arn: parameters.required("RoleArn", Text::anything(20, 2048))?,
            session_name: parameters.required("RoleSessionName", Text::name(2, 64))?,
            duration_seconds: parameters.number("DurationSeconds", ASSUMED_RANGE)?.unwrap_or(ASSUMED_SECONDS),
            external_id: parameters.optional("ExternalId", Text { min: 2, max: 1224, also: Some("+=,.@:/-") })?,
            policy,
        };
        let assumed = self.0.assume_role(caller, &asked).await.map_err(|error| match error {
            AssumeRoleError::Denied(denied) => QueryError::new("AccessDenied", 403, denied.to_string()),
            AssumeRoleError::TooLong | AssumeRoleError::TooLongForChain => QueryError::new("ValidationError", 400, error.to_string()),
            AssumeRoleError::Store(error) => internal(&error),
        })?;
        let mut result = credentials(&assumed.credentials);
        result.element("AssumedRoleUser", |user| {
            user.text("AssumedRoleId", &assumed.caller.user_id).text("Arn", &assumed.caller.arn);
        });
        if let Some(policy) = policy {
            result.text("PackedPolicySize", (policy.len() * 100).div_ceil(MAX_POLICY).to_string());
        }
        Ok(result)
    }

    async fn session_token(&self, caller: &Caller, parameters: Parameters<'_>) -> Result<Xml, QueryError> {
        not_built(parameters, &["SerialNumber", "TokenCode"])?;
        self.0.check(caller, &Question::new("sts:GetSessionToken", "*")).await.map_err(refused)?;
        let longest = if caller.principal == Principal::Root { ROOT_SECONDS } else { *SESSION_RANGE.end() };
        let seconds = parameters.number("DurationSeconds", SESSION_RANGE)?.unwrap_or(SESSION_SECONDS).min(longest);
        let issued = self.0.session_token(caller, seconds).filter(|_| caller.session.is_none());
        let issued = issued.ok_or_else(|| QueryError::new("AccessDenied", 403, "Cannot call GetSessionToken with session credentials"))?;
        Ok(credentials(&issued))
    }
}

/// What is asked for and has no effect here is refused rather than left out.
fn not_built(parameters: Parameters<'_>, names: &[&str]) -> Result<(), QueryError> {
    match names.iter().find(|name| parameters.0.contains_key(**name)) {
        Some(name) => {
            let name = name.split('.').next().unwrap_or_default();
            Err(QueryError::new("NotImplemented", 501, format!("Emberbox's STS does not have {name}: leave it out")))
        }
        None => Ok(()),
    }
}

fn credentials(issued: &Issued) -> Xml {
    let mut xml = Xml::default();
    xml.element("Credentials", |credentials| {
        credentials
            .text("AccessKeyId", &issued.access_key_id)
            .text("SecretAccessKey", &issued.secret)
            .text("SessionToken", &issued.session_token)
            .text("Expiration", iso8601(issued.expires_at));
    });
    xml
}

fn caller_identity(caller: &Caller) -> Xml {
    let mut xml = Xml::default();
    xml.text("Arn", &caller.arn).text("UserId", &caller.user_id).text("Account", &caller.account.0);
    xml
}
