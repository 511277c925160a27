//! The `Principal` element of trust policies, and who it names.

use serde_json::Value;

use super::document::{MalformedPolicy, texts};

/// Who asks, as a trust policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor<'a> {
    Service(&'a str),
    /// Everything of the account that is not named more closely.
    Identity {
        account: &'a str,
        /// Of the caller.
        arn: &'a str,
        /// Of the role behind an assumed role; else the caller's own.
        principal_arn: &'a str,
    },
}

/// How closely a trust policy names an actor. Naming the account leaves the decision to the account's identity policies (documented).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Named {
    Account,
    Closely,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Principals {
    Everybody,
    Listed(Vec<Listed>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listed {
    Anybody,
    Account(String),
    Arn(String),
    Service(String),
}

impl Principals {
    pub(super) fn parse(value: &Value) -> Result<Self, MalformedPolicy> {
        match value {
            Value::String(text) if text == "*" => Ok(Self::Everybody),
            Value::Object(kinds) if !kinds.is_empty() => {
                let mut listed = Vec::new();
                for (kind, names) in kinds {
                    for name in texts(names)? {
                        listed.push(listed_principal(kind, name)?);
                    }
                }
                Ok(Self::Listed(listed))
            }
            _ => Err(MalformedPolicy::Syntax),
        }
    }

    pub(super) fn name(&self, actor: &Actor<'_>) -> Option<Named> {
        match self {
            Self::Everybody => Some(Named::Closely),
            Self::Listed(listed) => listed.iter().filter_map(|principal| principal.names(actor)).max(),
        }
    }
}

impl Listed {
    fn names(&self, actor: &Actor<'_>) -> Option<Named> {
        match (self, actor) {
            (Self::Service(wanted), Actor::Service(service)) => (wanted == service).then_some(Named::Closely),
            (Self::Anybody, Actor::Identity { .. }) => Some(Named::Closely),
            (Self::Account(wanted), Actor::Identity { account, .. }) => (wanted == account).then_some(Named::Account),
            (Self::Arn(wanted), Actor::Identity { arn, principal_arn, .. }) => {
                (wanted == arn || wanted == principal_arn).then_some(Named::Closely)
            }
            (Self::Service(_), Actor::Identity { .. }) | (Self::Anybody | Self::Account(_) | Self::Arn(_), Actor::Service(_)) => None,
        }
    }
}

fn listed_principal(kind: &str, name: &str) -> Result<Listed, MalformedPolicy> {
    let invalid = || MalformedPolicy::Principal { kind: kind.to_owned(), name: name.to_owned() };
    match kind {
        "Service" => Ok(Listed::Service(name.to_owned())),
        "AWS" if name == "*" => Ok(Listed::Anybody),
        "AWS" if is_account(name) => Ok(Listed::Account(name.to_owned())),
        "AWS" => match name.splitn(6, ':').collect::<Vec<_>>()[..] {
            ["arn", _, "iam", "", account, "root"] if is_account(account) => Ok(Listed::Account(account.to_owned())),
            ["arn", _, "iam" | "sts", "", account, resource] if is_account(account) && resource.contains('/') && !name.contains('*') => {
                Ok(Listed::Arn(name.to_owned()))
            }
            _ => Err(invalid()),
        },
        // Identity providers of others: they name nobody here, so such a statement allows nobody.
        "Federated" | "CanonicalUser" => Ok(Listed::Arn(name.to_owned())),
        _ => Err(invalid()),
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}
