//! Managed policies on users and roles.

use emberbox_api::QueryError;
use emberbox_control::access::aws_managed_policy;
use emberbox_control::access::policy::Context;
use emberbox_store::{IdentityKind, Written};

use super::identities::{found_in, given, named};
use super::{Answer, Call, Outcome, error, more};
use crate::query::{Text, Xml};

/// Documented.
const MOST: usize = 10;
pub(super) const POLICY_ARN: Text = Text::anything(20, 2048);

pub(super) async fn attach(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let arn = call.parameters.required("PolicyArn", POLICY_ARN)?;
    let identity = found_in(call, kind, named(call, kind)?, context(arn)).await?;
    exists(call, arn).await?;
    let attached = call.store().attached_policies(&identity.id).await.map_err(error::store)?;
    if attached.len() >= MOST && !attached.iter().any(|other| other == arn) {
        let quota = if kind == IdentityKind::Role { "PoliciesPerRole" } else { "PoliciesPerUser" };
        return Err(error::limit(format!("Cannot exceed quota for {quota}: {MOST}")));
    }
    call.store().attach_policy(&identity.id, arn).await.map_err(error::store)?;
    call.access.changed();
    Ok(Answer::Done)
}

pub(super) async fn detach(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let arn = call.parameters.required("PolicyArn", POLICY_ARN)?;
    let identity = found_in(call, kind, named(call, kind)?, context(arn)).await?;
    match call.store().detach_policy(&identity.id, arn).await.map_err(error::store)? {
        Written::Done => {
            call.access.changed();
            Ok(Answer::Done)
        }
        Written::Absent | Written::Exists | Written::InUse => Err(error::absent(format!("Policy {arn} was not found."))),
    }
}

pub(super) async fn list(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let identity = given(call, kind).await?;
    let attached = call.store().attached_policies(&identity.id).await.map_err(error::store)?;
    let mut xml = Xml::default();
    xml.members("AttachedPolicies", &attached, |member, arn| {
        member.text("PolicyName", arn.rsplit('/').next().unwrap_or_default()).text("PolicyArn", arn);
    });
    more(&mut xml, None);
    Ok(Answer::Result(xml))
}

/// The key by which a policy limits what its holder may hand out (documented).
fn context(arn: &str) -> Context {
    let mut context = Context::default();
    context.set("iam:policyarn", arn);
    context
}

async fn exists(call: &Call<'_>, arn: &str) -> Result<(), QueryError> {
    let own = call.store().managed_policy(arn).await.map_err(error::store)?.is_some_and(|policy| policy.account == call.caller.account);
    match own || aws_managed_policy(arn).is_some() {
        true => Ok(()),
        false => Err(error::absent(format!("Policy {arn} does not exist or is not attachable."))),
    }
}
