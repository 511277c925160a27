//! Policy documents: JSON in, compiled statements out, refused in AWS's words when they are malformed (observed, unless marked).

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::condition::Condition;
use super::pattern::{Pattern, Syntax};
use super::principal::Principals;

/// Why a document is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MalformedPolicy {
    #[error("Syntax errors in policy.")]
    Syntax,
    #[error("Policy document must be version 2012-10-17 or greater.")]
    Version,
    #[error("Policy statement must contain actions.")]
    NoActions,
    #[error("Policy statement must contain resources.")]
    NoResources,
    #[error("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")]
    Vendor,
    #[error("Resource {0} must be in ARN format or \"*\".")]
    Resource(String),
    #[error("Policy document should not specify a principal.")]
    HasPrincipal,
    #[error("Has prohibited field {0}")]
    Prohibited(&'static str),
    #[error("Missing required field Principal")]
    NoPrincipal,
    #[error("Invalid principal in policy: \"{kind}\":\"{name}\"")]
    Principal { kind: String, name: String },
    #[error("Statement IDs (SID) in a single policy must be unique.")]
    SameSid,
    #[error("AssumeRole policy may only specify STS AssumeRole actions.")]
    NotAssumeRole,
    /// Ours.
    #[error("Unknown condition operator {0}")]
    Operator(String),
    /// Ours.
    #[error("The condition value {0} is not of its operator's type")]
    Value(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Allow,
    Deny,
}

/// `Action` or `NotAction`, `Resource` or `NotResource`.
#[derive(Debug, Clone)]
pub(super) struct Matcher {
    pub(super) negated: bool,
    pub(super) patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub(super) effect: Effect,
    /// In lower case: actions have none (documented).
    pub(super) actions: Matcher,
    /// Trust policies have no resource: it is the role itself.
    pub(super) resources: Option<Matcher>,
    /// Trust policies alone have a principal.
    pub(super) principals: Option<Principals>,
    pub(super) conditions: Vec<Condition>,
}

/// A compiled document.
#[derive(Debug, Clone)]
pub struct Document {
    pub(super) statements: Vec<Statement>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Identity,
    Trust,
}

impl Document {
    /// A policy of a user or a role, or of a session.
    pub fn identity(text: &str) -> Result<Self, MalformedPolicy> {
        Self::parse(text, Kind::Identity)
    }

    /// Who may assume a role.
    pub fn trust(text: &str) -> Result<Self, MalformedPolicy> {
        Self::parse(text, Kind::Trust)
    }

    fn parse(text: &str, kind: Kind) -> Result<Self, MalformedPolicy> {
        let document: Value = serde_json::from_str(text).map_err(|_| MalformedPolicy::Syntax)?;
        let members = document.as_object().ok_or(MalformedPolicy::Syntax)?;
        only(members, &["Version", "Id", "Statement"])?;
        let variables = match members.get("Version") {
            Some(Value::String(version)) if version == "2012-10-17" => true,
            // Documented: the older version, and the one meant when none is named; its `${` is plain text.
            Some(Value::String(version)) if version == "2008-10-17" => false,
            None => false,
            Some(_) => return Err(MalformedPolicy::Version),
        };
        let statements = match members.get("Statement") {
            Some(Value::Array(statements)) if !statements.is_empty() => statements.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => return Err(MalformedPolicy::Syntax),
        };
        unique_sids(&statements)?;
        let statements = statements.into_iter().map(|value| statement(value, kind, variables)).collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// Whether a decision may depend on a condition key that begins with `prefix` (in lower case).
    pub(crate) fn mentions(&self, prefix: &str) -> bool {
        self.statements.iter().any(|statement| {
            statement.conditions.iter().any(|condition| condition.mentions(prefix))
                || statement.resources.iter().flat_map(|resources| &resources.patterns).any(|pattern| pattern.mentions(prefix))
        })
    }
}

fn unique_sids(statements: &[&Value]) -> Result<(), MalformedPolicy> {
    let mut seen = HashSet::new();
    let sids = statements.iter().filter_map(|statement| statement.get("Sid"));
    for sid in sids {
        if !seen.insert(sid.as_str().ok_or(MalformedPolicy::Syntax)?) {
            return Err(MalformedPolicy::SameSid);
        }
    }
    Ok(())
}

fn statement(value: &Value, kind: Kind, variables: bool) -> Result<Statement, MalformedPolicy> {
    let members = value.as_object().ok_or(MalformedPolicy::Syntax)?;
    only(members, &["Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource", "NotResource", "Condition"])?;
    let effect = match members.get("Effect").and_then(Value::as_str) {
        Some("Allow") => Effect::Allow,
        Some("Deny") => Effect::Deny,
        _ => return Err(MalformedPolicy::Syntax),
    };
    let (resources, principals) = match kind {
        Kind::Identity => {
            if ["Principal", "NotPrincipal"].iter().any(|name| members.contains_key(*name)) {
                return Err(MalformedPolicy::HasPrincipal);
            }
            let resources = matcher(members, "Resource", "NotResource", |text| resource(text, variables))?;
            (Some(resources.ok_or(MalformedPolicy::NoResources)?), None)
        }
        Kind::Trust => {
            // A negated principal is a trap that AWS advises against: refused rather than half understood (ours).
            for prohibited in ["Resource", "NotResource", "NotPrincipal"] {
                if members.contains_key(prohibited) {
                    return Err(MalformedPolicy::Prohibited(prohibited));
                }
            }
            (None, Some(Principals::parse(members.get("Principal").ok_or(MalformedPolicy::NoPrincipal)?)?))
        }
    };
    let actions = matcher(members, "Action", "NotAction", |text| action(text, kind))?.ok_or(MalformedPolicy::NoActions)?;
    Ok(Statement { effect, actions, resources, principals, conditions: conditions(members.get("Condition"), variables)? })
}

fn only(members: &Map<String, Value>, known: &[&str]) -> Result<(), MalformedPolicy> {
    members.keys().all(|name| known.contains(&name.as_str())).then_some(()).ok_or(MalformedPolicy::Syntax)
}

/// One of the two elements, not both.
fn matcher(
    members: &Map<String, Value>,
    plain: &str,
    negated: &str,
    compile: impl Fn(&str) -> Result<Pattern, MalformedPolicy>,
) -> Result<Option<Matcher>, MalformedPolicy> {
    let (value, negated) = match (members.get(plain), members.get(negated)) {
        (Some(_), Some(_)) => return Err(MalformedPolicy::Syntax),
        (Some(value), None) => (value, false),
        (None, Some(value)) => (value, true),
        (None, None) => return Ok(None),
    };
    let patterns: Vec<Pattern> = texts(value)?.into_iter().map(compile).collect::<Result<_, _>>()?;
    Ok((!patterns.is_empty()).then_some(Matcher { negated, patterns }))
}

fn action(text: &str, kind: Kind) -> Result<Pattern, MalformedPolicy> {
    let named = text.split_once(':').is_some_and(|(vendor, name)| !vendor.is_empty() && !name.is_empty() && !name.contains(':'));
    if text != "*" && !named {
        return Err(MalformedPolicy::Vendor);
    }
    if kind == Kind::Trust && text != "*" && !text.to_ascii_lowercase().starts_with("sts:") {
        return Err(MalformedPolicy::NotAssumeRole);
    }
    Pattern::compile(&text.to_ascii_lowercase(), Syntax { wildcards: true, variables: false })
}

fn resource(text: &str, variables: bool) -> Result<Pattern, MalformedPolicy> {
    if text != "*" && !text.starts_with("arn:") {
        return Err(MalformedPolicy::Resource(text.to_owned()));
    }
    Pattern::compile(text, Syntax { wildcards: true, variables })
}

fn conditions(value: Option<&Value>, variables: bool) -> Result<Vec<Condition>, MalformedPolicy> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let operators = value.as_object().ok_or(MalformedPolicy::Syntax)?;
    let mut conditions = Vec::new();
    for (operator, block) in operators {
        conditions.extend(Condition::parse(operator, block, variables)?);
    }
    Ok(conditions)
}

/// A text or a list of texts.
pub(super) fn texts(value: &Value) -> Result<Vec<&str>, MalformedPolicy> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Array(values) => values.iter().map(|value| value.as_str().ok_or(MalformedPolicy::Syntax)).collect(),
        _ => Err(MalformedPolicy::Syntax),
    }
}

/// As [`texts`], where numbers and booleans may be written without quotes (documented for conditions).
pub(super) fn texts_of_any(value: &Value) -> Result<Vec<String>, MalformedPolicy> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(MalformedPolicy::Syntax),
    };
    match value {
        Value::Array(values) => values.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}
