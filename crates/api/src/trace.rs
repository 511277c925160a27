//! What the audit log will say of one request, gathered on its way; reported when the request is done with, however it ends.
//!
//! Never holds a body, a signature, a token or the value of a member that the model calls sensitive.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use emberbox_wire::audit::{Actor, AuditError, AuditEvent, AuditLog, AuditResource};
use emberbox_wire::caller::Caller;
use http::header::USER_AGENT;
use http::request::Parts;
use serde_json::{Map, Value};

use crate::model::{Kind, Model, Operation, ShapeId};
use crate::sigv4;

/// CloudTrail's word in place of what must not be seen.
const HIDDEN: &str = "HIDDEN_DUE_TO_SECURITY_REASONS";
/// Bounds of what is kept of a request, so that the queue of events is bounded: a text, and the elements of a list or map.
const MAX_TEXT: usize = 2048;
const MAX_ELEMENTS: usize = 100;
/// Members of the query protocol's requests whose values are secrets. None of the operations served now has one.
const SECRET_WORDS: [&str; 4] = ["password", "secret", "token", "assertion"];

/// One request's event, until it is reported. An empty one reports nothing.
pub(crate) struct Trace(Option<Inner>);

struct Inner {
    event: Box<AuditEvent>,
    log: Arc<dyn AuditLog>,
    ended: bool,
}

impl Trace {
    pub(crate) fn begin(parts: &Parts, client: IpAddr, request_id: &str, region: &str, log: Arc<dyn AuditLog>) -> Self {
        let claim = sigv4::parse::claimed(parts);
        let user_agent = parts.headers.get(USER_AGENT).map(|value| cut(&String::from_utf8_lossy(value.as_bytes())));
        let event = AuditEvent {
            source: String::new(),
            name: "Unknown".into(),
            region: region.into(),
            actor: Actor::Unverified { access_key: claim.map(|claim| cut(&claim.access_key_id)) },
            address: Some(client.to_string()),
            user_agent,
            request_id: Some(request_id.into()),
            request: None,
            response: None,
            error: None,
            read_only: false,
            account: None,
            resources: Vec::new(),
            details: None,
        };
        Self(Some(Inner { event: Box::new(event), log, ended: false }))
    }

    /// Leaves an empty one in its place.
    pub(crate) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// Not a call of any service.
    pub(crate) fn forget(&mut self) {
        self.0 = None;
    }

    fn with(&mut self, change: impl FnOnce(&mut AuditEvent)) {
        if let Some(inner) = &mut self.0 {
            change(&mut inner.event);
        }
    }

    pub(crate) fn service(&mut self, name: &str) {
        self.with(|event| event.source = format!("{name}.amazonaws.com"));
    }

    pub(crate) fn operation(&mut self, name: &str, read_only: bool) {
        self.with(|event| {
            event.name = cut(name);
            event.read_only = read_only;
        });
    }

    /// The signature holds.
    pub(crate) fn caller(&mut self, caller: &Caller) {
        self.with(|event| {
            event.account = Some(caller.account.clone());
            event.actor = Actor::Caller { access_key: caller.access_key_id.clone(), caller: Box::new(caller.clone()) };
        });
    }

    /// The members of an operation's input.
    pub(crate) fn input(&mut self, model: &Model, shape: ShapeId, input: &Value) {
        self.with(|event| {
            event.request = Some(seen(model, shape, input));
            event.resources.extend(resources(event, input));
        });
    }

    /// The parameters of the query protocol.
    pub(crate) fn parameters(&mut self, parameters: &BTreeMap<String, String>) {
        let shown = |(name, value): (&String, &String)| {
            let lower = name.to_ascii_lowercase();
            let secret = SECRET_WORDS.iter().any(|word| lower.contains(word));
            (cut(name), Value::from(if secret { HIDDEN.into() } else { cut(value) }))
        };
        let given = parameters.iter().filter(|(name, _)| !matches!(name.as_str(), "Action" | "Version") && !name.starts_with("X-Amz-"));
        self.with(|event| event.request = Some(Value::Object(given.take(MAX_ELEMENTS).map(shown).collect())));
    }

    /// What a service that routes for itself was asked.
    pub(crate) fn asked(&mut self, request: Value, resource: Option<AuditResource>) {
        self.with(|event| {
            event.request = Some(request);
            event.resources.extend(resource);
        });
    }

    pub(crate) fn succeeded(&mut self, model: &Model, operation: &Operation, output: &Value) {
        self.with(|event| {
            if !operation.read_only {
                event.response = operation.output.map(|shape| seen(model, shape, output));
                let more: Vec<_> = resources(event, output).into_iter().filter(|made| !event.resources.contains(made)).collect();
                event.resources.extend(more);
            }
        });
        self.ended();
    }

    pub(crate) fn failed(&mut self, code: &str, message: &str) {
        self.with(|event| event.error = Some(AuditError { code: code.into(), message: cut(message) }));
        self.ended();
    }

    /// The client has, or is about to have, its answer.
    pub(crate) fn ended(&mut self) {
        if let Some(inner) = &mut self.0 {
            inner.ended = true;
        }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let Some(Inner { mut event, log, ended }) = self.0.take() else { return };
        if !ended {
            let message = "The client hung up before the request was understood.".to_owned();
            event.error = Some(AuditError { code: "ClientDisconnected".into(), message });
        }
        log.event(*event);
    }
}

/// What a service that verifies its requests itself (S3) lets the front know of one, for the audit log. In the extensions of its requests.
#[derive(Debug, Clone, Default)]
pub struct CallNote(Arc<Mutex<Option<(Caller, String)>>>);

impl CallNote {
    /// The signature holds, and this is what is asked for.
    pub fn set(&self, caller: &Caller, operation: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((caller.clone(), operation.to_owned()));
    }

    pub(crate) fn get(&self) -> Option<(Caller, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// A value as the audit log may show it.
fn seen(model: &Model, shape: ShapeId, value: &Value) -> Value {
    let described = model.shape(shape);
    if described.sensitive {
        return HIDDEN.into();
    }
    match (&described.kind, value) {
        (Kind::Structure { members, .. }, Value::Object(object)) => {
            let shown = members.iter().filter_map(|member| {
                let value = object.get(&member.name).filter(|value| !value.is_null())?;
                Some((member.name.clone(), seen(model, member.shape, value)))
            });
            Value::Object(shown.collect())
        }
        (Kind::List { element, .. }, Value::Array(elements)) => {
            elements.iter().take(MAX_ELEMENTS).map(|value| seen(model, *element, value)).collect()
        }
        (Kind::Map { value: shape, .. }, Value::Object(entries)) => {
            Value::Object(entries.iter().take(MAX_ELEMENTS).map(|(key, value)| (cut(key), seen(model, *shape, value))).collect())
        }
        (_, Value::String(text)) => cut(text).into(),
        (_, Value::Object(_) | Value::Array(_)) => Value::Object(Map::new()),
        (_, value) => value.clone(),
    }
}

/// The resources that members of a request or an answer name.
fn resources(event: &AuditEvent, members: &Value) -> Vec<AuditResource> {
    let Value::Object(members) = members else { return Vec::new() };
    let mut found: Vec<AuditResource> = Vec::new();
    for (name, value) in members {
        let Some(text) = value.as_str() else { continue };
        let arn = match name.as_str() {
            "imageIdentifier" | "imageArn" | "Resource" | "Arn" | "Identifier" if text.starts_with("arn:") => cut(text),
            "microvmIdentifier" | "microvmId" => {
                let account = event.account.as_ref().map(|account| account.0.as_str()).unwrap_or_default();
                format!("arn:aws:lambda:{}:{account}:microvm:{}", event.region, cut(text))
            }
            _ => continue,
        };
        let resource = AuditResource { kind: kind(&arn), arn };
        if !found.contains(&resource) {
            found.push(resource);
        }
    }
    found
}

/// As CloudFormation calls what an ARN names; MicroVMs themselves it has no word for (ours).
fn kind(arn: &str) -> &'static str {
    match arn.split(':').nth(5) {
        Some("microvm-image") => "AWS::Lambda::MicrovmImage",
        Some("network-connector") => "AWS::Lambda::NetworkConnector",
        Some("microvm") => "AWS::Lambda::Microvm",
        Some(_) | None => "AWS::Lambda::Resource",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn of(model: &Model, operation: &str, input: &Value) -> Value {
        let operation = model.operations.iter().find(|candidate| candidate.name == operation).unwrap();
        seen(model, operation.input.unwrap(), input)
    }

    #[test]
    fn sensitive_members_are_hidden_and_long_ones_cut() {
        let model = Model::load().unwrap();
        let run = of(&model, "RunMicrovm", &json!({"imageIdentifier": "arn:x", "runHookPayload": "secret", "idlePolicy": null}));
        assert_eq!(run, json!({"imageIdentifier": "arn:x", "runHookPayload": HIDDEN}));
        let image = of(&model, "CreateMicrovmImage", &json!({"environmentVariables": {"KEY": "secret"}, "description": "x".repeat(5000)}));
        assert_eq!(image["environmentVariables"], json!({"KEY": HIDDEN}));
        assert_eq!(image["description"].as_str().unwrap().len(), MAX_TEXT + 3);
        let token = model.operations.iter().find(|operation| operation.name == "CreateMicrovmAuthToken").unwrap();
        let answer = seen(&model, token.output.unwrap(), &json!({"authToken": {"X-aws-proxy-auth": "secret"}}));
        assert_eq!(answer, json!({"authToken": {"X-aws-proxy-auth": HIDDEN}}));
    }
}
