//! What the audit log is told: one event for each call and each change the daemon makes by itself, in the shape of CloudTrail's records (documented:
//! CloudTrail user guide, "record contents").
//!
//! Owns the shape alone. Who builds an event leaves secrets out of it; the sink adds the moment and the event's id.

use serde_json::{Map, Value, json};

use crate::caller::Caller;
use crate::ids::AccountId;

/// The version of CloudTrail's record format that this is.
const EVENT_VERSION: &str = "1.11";
/// CloudTrail's source of what a service does by itself.
const SERVICE: &str = "lambda.amazonaws.com";

/// Takes events. Called in the middle of requests and transitions: it must never block, and says itself when it loses something.
pub trait AuditLog: Send + Sync + 'static {
    fn event(&self, event: AuditEvent);
}

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A request whose signature holds.
    Caller { caller: Box<Caller>, access_key: String },
    /// A request that did not prove who sent it; the access key it names, if any.
    Unverified { access_key: Option<String> },
    /// The daemon itself: a policy, a timer, a machine that ended.
    Service,
}

/// Something the event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditResource {
    pub arn: String,
    /// As CloudFormation calls the type, e.g. `AWS::Lambda::MicrovmImage`.
    pub kind: &'static str,
}

/// The error a call ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditError {
    /// The name of its shape.
    pub code: String,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// Which service, e.g. `lambda.amazonaws.com`.
    pub source: String,
    /// The operation, or what the daemon did, e.g. `MicrovmSuspended`.
    pub name: String,
    pub region: String,
    pub actor: Actor,
    /// The client's address.
    pub address: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    /// Without the values of sensitive members.
    pub request: Option<Value>,
    /// What a call that changes something answered, without sensitive values.
    pub response: Option<Value>,
    pub error: Option<AuditError>,
    pub read_only: bool,
    /// The account whose resources it touches.
    pub account: Option<AccountId>,
    pub resources: Vec<AuditResource>,
    /// Of what the daemon did by itself.
    pub details: Option<Value>,
}

impl AuditEvent {
    /// A change the daemon made without being asked, e.g. by an idle policy.
    pub fn by_the_service(name: &str, region: &str, account: &AccountId, resource: AuditResource, details: Value) -> Self {
        Self {
            source: SERVICE.into(),
            name: name.into(),
            region: region.into(),
            actor: Actor::Service,
            address: None,
            user_agent: None,
            request_id: None,
            request: None,
            response: None,
            error: None,
            read_only: false,
            account: Some(account.clone()),
            resources: vec![resource],
            details: Some(details),
        }
    }

    /// The record, as one line of the log has it. `time` is RFC 3339 in UTC.
    pub fn record(&self, time: &str, event_id: &str) -> Value {
        let service = self.actor == Actor::Service;
        let mut record = json!({
            "eventVersion": EVENT_VERSION,
            "userIdentity": self.actor.identity(),
            "eventTime": time,
            "eventSource": self.source,
            "eventName": self.name,
            "awsRegion": self.region,
            "sourceIPAddress": self.address.as_deref().unwrap_or(SERVICE),
            "userAgent": self.user_agent.as_deref().unwrap_or(if service { SERVICE } else { "-" }),
            "requestParameters": self.request,
            "responseElements": self.response,
            "eventID": event_id,
            "readOnly": self.read_only,
            "eventType": if service { "AwsServiceEvent" } else { "AwsApiCall" },
            "managementEvent": true,
            "eventCategory": "Management",
        });
        let Value::Object(members) = &mut record else { return record };
        let mut maybe = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                members.insert(name.into(), value);
            }
        };
        maybe("requestID", self.request_id.as_deref().map(Value::from));
        maybe("errorCode", self.error.as_ref().map(|error| error.code.as_str().into()));
        maybe("errorMessage", self.error.as_ref().map(|error| error.message.as_str().into()));
        maybe("recipientAccountId", self.account.as_ref().map(|account| account.0.as_str().into()));
        maybe("serviceEventDetails", self.details.clone());
        let resources: Vec<Value> = self.resources.iter().map(|resource| json!({"ARN": resource.arn, "type": resource.kind})).collect();
        maybe("resources", (!resources.is_empty()).then_some(Value::Array(resources)));
        record
    }
}

impl Actor {
    /// `userIdentity`.
    fn identity(&self) -> Value {
        match self {
            Self::Caller { caller, access_key } => json!({
                "type": kind(&caller.arn),
                "principalId": caller.user_id,
                "arn": caller.arn,
                "accountId": caller.account.0,
                "accessKeyId": access_key,
            }),
            // As CloudTrail shows a caller it could not name.
            Self::Unverified { access_key } => {
                let mut identity =
                    Map::from_iter([("type".to_owned(), json!("Unknown")), ("accountId".to_owned(), json!("ANONYMOUS_PRINCIPAL"))]);
                if let Some(access_key) = access_key {
                    identity.insert("accessKeyId".into(), access_key.as_str().into());
                }
                Value::Object(identity)
            }
            Self::Service => json!({"type": "AWSService", "invokedBy": SERVICE}),
        }
    }
}

/// CloudTrail's word for a kind of principal.
fn kind(arn: &str) -> &'static str {
    match arn.splitn(6, ':').nth(5) {
        Some("root") => "Root",
        Some(resource) if resource.starts_with("user/") => "IAMUser",
        Some(resource) if resource.starts_with("assumed-role/") => "AssumedRole",
        Some(_) | None => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "123456789012";

    fn account() -> AccountId {
        AccountId(ACCOUNT.into())
    }

    #[test]
    fn a_service_event_names_itself_and_its_resource() {
        let resource =
            AuditResource { arn: "arn:aws:lambda:us-east-1:123456789012:microvm:microvm-1".into(), kind: "AWS::Lambda::Microvm" };
        let event = AuditEvent::by_the_service("MicrovmSuspended", "us-east-1", &account(), resource.clone(), json!({"reason": "idle"}));
        let record = event.record("2026-01-01T00:00:00Z", "e-1");
        assert_eq!(record["eventType"], "AwsServiceEvent");
        assert_eq!(record["userIdentity"], json!({"type": "AWSService", "invokedBy": SERVICE}));
        assert_eq!(record["serviceEventDetails"], json!({"reason": "idle"}));
        assert_eq!(record["resources"], json!([{"ARN": resource.arn, "type": resource.kind}]));
        assert_eq!((&record["recipientAccountId"], &record["eventID"]), (&json!(ACCOUNT), &json!("e-1")));
        assert_eq!((record.get("errorCode"), record.get("requestID")), (None, None));
    }

    #[test]
    fn identities_are_in_cloudtrails_words() {
        for (arn, expected) in [
            ("arn:aws:iam::123456789012:root", "Root"),
            ("arn:aws:iam::123456789012:user/path/ann", "IAMUser"),
            ("arn:aws:sts::123456789012:assumed-role/build/session", "AssumedRole"),
            ("arn", "Unknown"),
        ] {
            assert_eq!(kind(arn), expected, "{arn}");
        }
        let nobody = Actor::Unverified { access_key: Some("AKIAX".into()) }.identity();
        assert_eq!(nobody, json!({"type": "Unknown", "accountId": "ANONYMOUS_PRINCIPAL", "accessKeyId": "AKIAX"}));
    }
}
