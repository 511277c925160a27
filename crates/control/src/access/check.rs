//! The decision about one thing a caller wants to do.

use std::sync::Arc;

use emberbox_store::{IdentityId, StoreError};
use emberbox_wire::caller::{Caller, Principal};
use emberbox_wire::error::ApiError;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::builtin::aws_managed_policy;
use super::cache::Grants;
use super::policy::{Context, Decision, Document, Request, decide, might_allow};
use super::{Access, Denied, Why};

/// Why something may not be done.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("the records could not be read")]
    Store(#[from] StoreError),
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Denied(denied) => denied.into(),
            AccessError::Store(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "permissions could not be looked up");
                Self::internal()
            }
        }
    }
}

/// One action on one thing.
#[derive(Debug, Clone)]
pub struct Question {
    /// `service:Operation`.
    pub action: String,
    /// ARNs by which the thing is known; a refusal names the first. `*` where the action has no resource.
    pub resources: Vec<String>,
    /// Condition keys beside those every request has.
    pub context: Context,
}

impl Question {
    pub fn new(action: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { action: action.into(), resources: vec![resource.into()], context: Context::default() }
    }

    fn denied(&self, caller: &Caller, why: Why) -> Denied {
        let resource = self.resources.first().cloned().unwrap_or_else(|| "*".into());
        Denied { user: caller.arn.clone(), action: self.action.clone(), resource, why }
    }
}

/// The policies that bear on a caller: its identity's, and a session's own, which only takes away.
pub(super) struct Bearing {
    identity: Arc<Grants>,
    session: Option<Arc<Grants>>,
}

impl Access {
    /// Whether the caller's policies allow it. A root may do everything; that it is of its own account is for the one who asks to see to.
    pub async fn check(&self, caller: &Caller, question: &Question) -> Result<(), AccessError> {
        match self.bearing(caller).await? {
            None => Ok(()),
            Some(bearing) => Ok(bearing.check(caller, question, &self.circumstances(caller, &question.context))?),
        }
    }

    /// As [`Access::check`], about a thing that does not exist or is another account's.
    pub(crate) async fn check_absent(&self, caller: &Caller, question: &Question) -> Result<(), AccessError> {
        match self.bearing(caller).await? {
            Some(bearing) if !bearing.might_allow(&question.action) => Err(question.denied(caller, Why::NoIdentityPolicy).into()),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether the caller's permissions depend on tags of resources.
    pub async fn by_resource_tags(&self, caller: &Caller) -> Result<bool, StoreError> {
        let bearing = self.bearing(caller).await?;
        Ok(bearing
            .is_some_and(|bearing| bearing.identity.by_resource_tags || bearing.session.is_some_and(|session| session.by_resource_tags)))
    }

    /// `None` for a root.
    async fn bearing(&self, caller: &Caller) -> Result<Option<Bearing>, StoreError> {
        let identity = match &caller.principal {
            Principal::Root => return Ok(None),
            Principal::User(named) | Principal::AssumedRole { role: named, .. } => self.grants(&IdentityId(named.id.clone())).await?,
        };
        let session = caller.session.as_ref().and_then(|session| session.policy.as_deref());
        let session = session.map(|policy| self.session_policy(&caller.access_key_id, policy));
        Ok(Some(Bearing { identity, session }))
    }

    async fn grants(&self, id: &IdentityId) -> Result<Arc<Grants>, StoreError> {
        if let Some(known) = self.cache.grants(id) {
            return Ok(known);
        }
        let generation = self.cache.generation();
        let mut texts: Vec<String> = self.store.inline_policies(id).await?.into_iter().map(|(_, document)| document).collect();
        for arn in self.store.attached_policies(id).await? {
            match aws_managed_policy(&arn) {
                Some(policy) => texts.push(policy.document.to_owned()),
                None => texts.extend(self.store.managed_policy_document(&arn).await?),
            }
        }
        let grants = Arc::new(compile(texts.iter().map(String::as_str)));
        self.cache.keep_grants(generation, id, &grants);
        Ok(grants)
    }

    fn session_policy(&self, key: &str, text: &str) -> Arc<Grants> {
        if let Some(known) = self.cache.session_policy(key) {
            return known;
        }
        let generation = self.cache.generation();
        let grants = Arc::new(compile([text].into_iter()));
        self.cache.keep_session_policy(generation, key, &grants);
        grants
    }

    /// The condition keys every request has (documented: "AWS global condition context keys"), and those of the question.
    pub(super) fn circumstances(&self, caller: &Caller, more: &Context) -> Context {
        let now = self.now_seconds();
        let mut context = more.clone();
        let kind = match &caller.principal {
            Principal::Root => "Account",
            Principal::User(user) => {
                context.set("aws:username", &user.name);
                "User"
            }
            Principal::AssumedRole { .. } => "AssumedRole",
        };
        context.set("aws:principaltype", kind);
        context.set("aws:principalarn", caller.principal_arn());
        context.set("aws:principalaccount", &caller.account.0);
        context.set("aws:userid", &caller.user_id);
        context.set("aws:sourceip", caller.source_ip.to_string());
        context.set("aws:currenttime", iso8601(now));
        context.set("aws:epochtime", now.to_string());
        context.set("aws:requestedregion", &self.region);
        // The API is served without TLS; a proxy before it is not seen (ours).
        context.set("aws:securetransport", "false");
        context.set("aws:viaawsservice", "false");
        if let Some(session) = &caller.session {
            context.set("aws:tokenissuetime", iso8601(session.issued_at));
            context.set("aws:multifactorauthpresent", "false");
        }
        context
    }
}

impl Bearing {
    fn check(&self, caller: &Caller, question: &Question, context: &Context) -> Result<(), Denied> {
        let request = Request { action: &question.action, resources: &question.resources, context };
        let refuse = |why| Err(question.denied(caller, why));
        match decide(&self.identity.documents, &request) {
            Decision::Allowed => {}
            Decision::Implicit => return refuse(Why::NoIdentityPolicy),
            Decision::Explicit => return refuse(Why::DeniedByIdentityPolicy),
        }
        match self.session.as_ref().map(|session| decide(&session.documents, &request)) {
            None | Some(Decision::Allowed) => Ok(()),
            Some(Decision::Implicit) => refuse(Why::NoSessionPolicy),
            Some(Decision::Explicit) => refuse(Why::DeniedBySessionPolicy),
        }
    }

    fn might_allow(&self, action: &str) -> bool {
        might_allow(&self.identity.documents, action) && self.session.as_ref().is_none_or(|session| might_allow(&session.documents, action))
    }
}

/// Documents were compiled when they came in. When this version cannot read one any more, it might hold a deny: then nothing is allowed.
fn compile<'t>(texts: impl Iterator<Item = &'t str>) -> Grants {
    let mut documents = Vec::new();
    for text in texts {
        match Document::identity(text) {
            Ok(document) => documents.push(document),
            Err(error) => {
                tracing::error!(%error, "a stored policy cannot be read: its identity is denied everything");
                return Grants { documents: Vec::new(), by_resource_tags: false };
            }
        }
    }
    let by_resource_tags = documents.iter().any(|document| document.mentions("aws:resourcetag/"));
    Grants { documents, by_resource_tags }
}

/// As AWS writes times in text.
pub fn iso8601(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH).format(&Rfc3339).unwrap_or_default()
}
