//! Roles: whether one may be passed to Lambda, what one may do, and the assuming of one.

use std::sync::Arc;

use emberbox_store::{IdentityKind, IdentityRecord, IdentitySettings, RoleSettings, StoreError};
use emberbox_wire::caller::{Caller, Principal};
use emberbox_wire::ids::AccountId;

use super::check::{AccessError, Question};
use super::credentials::named;
use super::policy::{Actor, Context, Decision, Document, Trust, trusts};
use super::sessions::{Holder, Issued};
use super::{Access, Denied, Why};

/// Who runs builds and MicroVMs (documented).
pub(crate) const LAMBDA: &str = "lambda.amazonaws.com";
const ASSUME_ROLE: &str = "sts:AssumeRole";
/// The session a build has of its role.
const BUILD_SESSION: &str = "MicrovmImageBuild";
/// What a session may last that was made by a session (documented: "role chaining").
const CHAINED_SECONDS: u32 = 3600;

/// Why a role cannot be passed to Lambda.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// Observed of Lambda.
    #[error("Cross-account pass role is not allowed.")]
    OtherAccount,
    #[error("The role {0} cannot be assumed by Lambda: it does not exist")]
    Absent(String),
    #[error("The role {0} cannot be assumed by Lambda: its trust policy does not allow lambda.amazonaws.com to perform sts:AssumeRole")]
    Untrusting(String),
    #[error("the records could not be read")]
    Store(#[from] StoreError),
}

/// What AssumeRole is asked.
#[derive(Debug, Clone)]
pub struct AssumeRole<'a> {
    pub role_arn: &'a str,
    pub session_name: &'a str,
    pub duration_seconds: u32,
    pub external_id: Option<&'a str>,
    /// A session policy that compiles.
    pub policy: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
pub enum AssumeRoleError {
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Observed.
    #[error("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")]
    TooLong,
    /// Observed.
    #[error("The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining")]
    TooLongForChain,
    #[error("the records could not be read")]
    Store(#[from] StoreError),
}

/// A session of a role, and who its holder is.
pub struct Assumed {
    pub credentials: Issued,
    pub caller: Caller,
}

impl Access {
    /// Whether Lambda may assume the role for a thing of `account`. That the caller may pass it is [`super::operations`]'s to see to.
    pub async fn passable(&self, account: &AccountId, role_arn: &str, source_arn: &str) -> Result<(), RoleError> {
        if account_of(role_arn) != Some(&account.0) {
            return Err(RoleError::OtherAccount);
        }
        let role = self.role(role_arn).await?.ok_or_else(|| RoleError::Absent(role_arn.to_owned()))?;
        let mut context = Context::default();
        context.set("aws:sourceaccount", &account.0);
        context.set("aws:sourcearn", source_arn);
        match trust(&role, &Actor::Service(LAMBDA), &context) {
            Trust::Closely => Ok(()),
            Trust::ByAccount | Trust::Not(_) => Err(RoleError::Untrusting(role_arn.to_owned())),
        }
    }

    /// Whether a build may do something with its role. A role that is gone, or another account's, may do nothing.
    pub async fn build_may(&self, account: &AccountId, role_arn: &str, action: &str, resource: &str) -> Result<(), AccessError> {
        let question = Question::new(action, resource);
        let role = self.role(role_arn).await?.filter(|role| role.account == *account);
        let Some(role) = role else {
            let user = role_arn.to_owned();
            return Err(Denied { user, action: action.to_owned(), resource: resource.to_owned(), why: Why::NoIdentityPolicy }.into());
        };
        let caller = Caller::assumed_role(account.clone(), named(&role), BUILD_SESSION.to_owned(), "");
        self.check(&caller, &question).await
    }

    /// Temporary credentials of a role, for a caller that its trust policy and the caller's own policies let have them.
    pub async fn assume_role(&self, caller: &Caller, asked: &AssumeRole<'_>) -> Result<Assumed, AssumeRoleError> {
        let mut question = Question::new(ASSUME_ROLE, asked.role_arn);
        question.context.set("sts:rolesessionname", asked.session_name);
        if let Some(id) = asked.external_id {
            question.context.set("sts:externalid", id);
        }
        let denied = |why| Denied { user: caller.arn.clone(), action: ASSUME_ROLE.to_owned(), resource: asked.role_arn.to_owned(), why };
        // A role that does not exist is refused like one that does not trust (observed).
        let role = self.role(asked.role_arn).await?.ok_or_else(|| denied(Why::NoTrustPolicy))?;
        let context = self.circumstances(caller, &question.context);
        let actor = Actor::Identity { account: &caller.account.0, arn: &caller.arn, principal_arn: caller.principal_arn() };
        let own = self.check(caller, &question).await;
        match (trust(&role, &actor, &context), own) {
            (Trust::Not(Decision::Explicit), _) => return Err(denied(Why::DeniedByTrustPolicy).into()),
            (Trust::Not(_), _) => return Err(denied(Why::NoTrustPolicy).into()),
            (_, Err(AccessError::Store(error))) => return Err(error.into()),
            // Within an account a trust policy that names the caller is enough, unless the caller's own policies deny it (documented).
            (Trust::Closely, Err(AccessError::Denied(own))) if own.why == Why::NoIdentityPolicy && role.account == caller.account => {}
            (_, Err(AccessError::Denied(own))) => return Err(own.into()),
            (Trust::Closely | Trust::ByAccount, Ok(())) => {}
        }
        let longest = settings(&role).map_or(0, |role| role.max_session_seconds);
        if asked.duration_seconds > longest {
            return Err(AssumeRoleError::TooLong);
        }
        if matches!(caller.principal, Principal::AssumedRole { .. }) && asked.duration_seconds > CHAINED_SECONDS {
            return Err(AssumeRoleError::TooLongForChain);
        }
        let holder = Holder::Role { id: role.id.0.clone(), session: asked.session_name.to_owned() };
        let policy = asked.policy.map(str::to_owned);
        let credentials = self.sessions.issue(&role.account, holder, self.now_seconds(), asked.duration_seconds, policy);
        let session_name = asked.session_name.to_owned();
        let caller = Caller::assumed_role(role.account.clone(), named(&role), session_name, credentials.access_key_id.clone());
        Ok(Assumed { credentials, caller })
    }

    /// Temporary credentials that are as good as the caller's own. `None` for a session of a role, which gets none (documented).
    pub fn session_token(&self, caller: &Caller, duration_seconds: u32) -> Option<Issued> {
        let holder = match &caller.principal {
            Principal::Root => Holder::Root,
            Principal::User(user) => Holder::User { id: user.id.clone() },
            Principal::AssumedRole { .. } => return None,
        };
        Some(self.sessions.issue(&caller.account, holder, self.now_seconds(), duration_seconds, None))
    }

    async fn role(&self, arn: &str) -> Result<Option<Arc<IdentityRecord>>, StoreError> {
        let (Some(account), Some(name)) = (account_of(arn), arn.rsplit('/').next()) else { return Ok(None) };
        let found = self.store.identity(&AccountId(account.to_owned()), IdentityKind::Role, name).await?;
        Ok(found.filter(|role| role.arn() == arn).map(Arc::new))
    }
}

fn account_of(role_arn: &str) -> Option<&str> {
    let rest = role_arn.strip_prefix("arn:aws:iam::")?;
    rest.split_once(":role/").map(|(account, _)| account)
}

fn settings(role: &IdentityRecord) -> Option<&RoleSettings> {
    match &role.settings {
        IdentitySettings::Role(role) => Some(role),
        IdentitySettings::User => None,
    }
}

fn trust(role: &IdentityRecord, actor: &Actor<'_>, context: &Context) -> Trust {
    let document = settings(role).and_then(|role| Document::trust(&role.trust).ok());
    document.map_or(Trust::Not(Decision::Implicit), |document| trusts(&document, actor, ASSUME_ROLE, context))
}
