//! IAM in the query protocol: users, roles, access keys and policies of the caller's account, as far as working with MicroVMs needs them.
//!
//! Owns validation, limits and errors in AWS's words; records are the store's, decisions `emberbox_control::access`'s, which forgets what it knows after
//! every change. What is not built answers `InvalidAction` with a list of what is.
//!
//! One action is one function: parameters, then the permission, then the records. [`identities`] has what users and roles share.

mod access_keys;
mod attached;
mod error;
mod identities;
mod inline;
mod policies;
mod roles;
mod tags;
#[cfg(test)]
mod tests;
mod users;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use emberbox_api::{QueryError, QueryService};
use emberbox_control::access::policy::Context;
use emberbox_control::access::{Access, Question};
use emberbox_store::{IdentityKind, Store, UnixMillis};
use emberbox_wire::caller::Caller;

use crate::query::{Parameters, Text, Xml, refused, respond, respond_empty, unknown_action};

const VERSION: &str = "2010-05-08";
const NAMESPACE: &str = "https://iam.amazonaws.com/doc/2010-05-08/";
const SUPPORTED: &str = "Emberbox's IAM has roles, users, access keys, inline and managed policies and tags; no groups, login profiles, MFA, \
                         instance profiles or identity providers.";
/// Items on a page when the caller does not say, and the most (model).
const DEFAULT_ITEMS: u32 = 100;
const MOST_ITEMS: u32 = 1000;

pub struct Iam(Arc<Access>);

impl Iam {
    pub fn new(access: Arc<Access>) -> Self {
        Self(access)
    }
}

/// One request.
struct Call<'a> {
    access: &'a Access,
    caller: &'a Caller,
    action: &'a str,
    parameters: Parameters<'a>,
}

/// What an action answers.
enum Answer {
    Done,
    Result(Xml),
}

type Outcome = Result<Answer, QueryError>;

#[async_trait]
impl QueryService for Iam {
    fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    async fn call(&self, caller: &Caller, parameters: &BTreeMap<String, String>, request_id: &str) -> Result<String, QueryError> {
        let action = parameters.get("Action").map(String::as_str).unwrap_or_default();
        let call = Call { access: &self.0, caller, action, parameters: Parameters(parameters) };
        match call.dispatch().await? {
            Answer::Done => Ok(respond_empty(action, NAMESPACE, request_id)),
            Answer::Result(result) => Ok(respond(action, NAMESPACE, request_id, &result)),
        }
    }
}

impl Call<'_> {
    async fn dispatch(&self) -> Outcome {
        use IdentityKind::{Role, User};
        match self.action {
            "CreateRole" => roles::create(self).await,
            "GetRole" => roles::get(self).await,
            "ListRoles" => roles::list(self).await,
            "UpdateRole" => roles::update(self).await,
            "UpdateRoleDescription" => roles::update_description(self).await,
            "UpdateAssumeRolePolicy" => roles::update_trust(self).await,
            "DeleteRole" => identities::delete(self, Role).await,
            "ListInstanceProfilesForRole" => roles::list_instance_profiles(self).await,

            "CreateUser" => users::create(self).await,
            "GetUser" => users::get(self).await,
            "ListUsers" => users::list(self).await,
            "DeleteUser" => identities::delete(self, User).await,

            "CreateAccessKey" => access_keys::create(self).await,
            "ListAccessKeys" => access_keys::list(self).await,
            "UpdateAccessKey" => access_keys::update(self).await,
            "DeleteAccessKey" => access_keys::delete(self).await,

            "PutRolePolicy" => inline::put(self, Role).await,
            "GetRolePolicy" => inline::get(self, Role).await,
            "ListRolePolicies" => inline::list(self, Role).await,
            "DeleteRolePolicy" => inline::delete(self, Role).await,
            "PutUserPolicy" => inline::put(self, User).await,
            "GetUserPolicy" => inline::get(self, User).await,
            "ListUserPolicies" => inline::list(self, User).await,
            "DeleteUserPolicy" => inline::delete(self, User).await,

            "AttachRolePolicy" => attached::attach(self, Role).await,
            "DetachRolePolicy" => attached::detach(self, Role).await,
            "ListAttachedRolePolicies" => attached::list(self, Role).await,
            "AttachUserPolicy" => attached::attach(self, User).await,
            "DetachUserPolicy" => attached::detach(self, User).await,
            "ListAttachedUserPolicies" => attached::list(self, User).await,

            "CreatePolicy" => policies::create(self).await,
            "GetPolicy" => policies::get(self).await,
            "ListPolicies" => policies::list(self).await,
            "DeletePolicy" => policies::delete(self).await,
            "CreatePolicyVersion" => policies::create_version(self).await,
            "GetPolicyVersion" => policies::get_version(self).await,
            "ListPolicyVersions" => policies::list_versions(self).await,
            "SetDefaultPolicyVersion" => policies::set_default_version(self).await,
            "DeletePolicyVersion" => policies::delete_version(self).await,

            "TagRole" => tags::tag(self, Role).await,
            "UntagRole" => tags::untag(self, Role).await,
            "ListRoleTags" => tags::list(self, Role).await,
            "TagUser" => tags::tag(self, User).await,
            "UntagUser" => tags::untag(self, User).await,
            "ListUserTags" => tags::list(self, User).await,
            unknown => {
                let version = self.parameters.0.get("Version").map_or(VERSION, String::as_str);
                Err(unknown_action(unknown, version, SUPPORTED))
            }
        }
    }

    fn store(&self) -> &Store {
        self.access.store()
    }

    fn now(&self) -> UnixMillis {
        self.access.clock().now()
    }

    /// `iam:<action>` on one resource.
    async fn allowed(&self, resource: &str) -> Result<(), QueryError> {
        self.allowed_in(resource, Context::default()).await
    }

    async fn allowed_in(&self, resource: &str, context: Context) -> Result<(), QueryError> {
        let question = Question { context, ..Question::new(format!("iam:{}", self.action), resource) };
        self.access.check(self.caller, &question).await.map_err(refused)
    }

    /// The ARN of something of the caller's account: `role/name`.
    fn arn(&self, kind: IdentityKind, name: &str) -> String {
        format!("arn:aws:iam::{}:{}/{name}", self.caller.account, word(kind))
    }

    /// `Path`, `/` when it is not given.
    fn path(&self) -> Result<&str, QueryError> {
        let path = self.parameters.optional("Path", Text::anything(1, 512))?.unwrap_or("/");
        let visible = path.chars().all(|c| ('\u{21}'..='\u{7e}').contains(&c));
        match path.starts_with('/') && path.ends_with('/') && visible {
            true => Ok(path),
            false => Err(crate::query::invalid(
                "The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.",
            )),
        }
    }

    /// `(path prefix, after, limit)` of a listing.
    fn page(&self) -> Result<(&str, Option<i64>, u32), QueryError> {
        let prefix = self.parameters.optional("PathPrefix", Text::anything(1, 512))?.unwrap_or("/");
        let limit = self.parameters.number("MaxItems", 1..=MOST_ITEMS)?.unwrap_or(DEFAULT_ITEMS);
        let marker = self.parameters.optional("Marker", Text::anything(1, 320))?;
        let after = marker.map(|marker| i64::from_str_radix(marker, 16).ok().filter(|seq| *seq >= 0).ok_or_else(error::invalid_marker));
        Ok((prefix, after.transpose()?, limit))
    }
}

/// `IsTruncated` and `Marker` of a listing.
fn more(xml: &mut Xml, next: Option<i64>) {
    xml.text("IsTruncated", if next.is_some() { "true" } else { "false" });
    if let Some(next) = next {
        xml.text("Marker", format!("{next:x}"));
    }
}

fn word(kind: IdentityKind) -> &'static str {
    match kind {
        IdentityKind::User => "user",
        IdentityKind::Role => "role",
    }
}
