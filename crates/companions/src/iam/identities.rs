//! What users and roles share: being found, made, listed and deleted.

use std::collections::BTreeMap;

use emberbox_api::QueryError;
use emberbox_control::access::ids::IdOf;
use emberbox_control::access::policy::Context;
use emberbox_store::{IdentityId, IdentityKind, IdentityRecord, IdentitySettings, Written};

use super::{Answer, Call, Outcome, error, more, tags, views};
use crate::query::{Text, Xml};

/// Of names of roles and users (model).
const NAME: Text = Text::name(1, 64);

/// An account's most (documented: roles 1000, users 5000).
fn most(kind: IdentityKind) -> u32 {
    match kind {
        IdentityKind::Role => 1000,
        IdentityKind::User => 5000,
    }
}

pub(super) fn name_parameter(kind: IdentityKind) -> &'static str {
    match kind {
        IdentityKind::Role => "RoleName",
        IdentityKind::User => "UserName",
    }
}

/// The name that is given.
pub(super) fn named<'a>(call: &'a Call<'_>, kind: IdentityKind) -> Result<&'a str, QueryError> {
    call.parameters.required(name_parameter(kind), NAME)
}

/// The identity of the caller's account, if the caller may do this to it.
pub(super) async fn found(call: &Call<'_>, kind: IdentityKind, name: &str) -> Result<IdentityRecord, QueryError> {
    found_in(call, kind, name, Context::default()).await
}

pub(super) async fn found_in(call: &Call<'_>, kind: IdentityKind, name: &str, mut context: Context) -> Result<IdentityRecord, QueryError> {
    let record = call.store().identity(&call.caller.account, kind, name).await.map_err(error::store)?;
    let arn = record.as_ref().map_or_else(|| call.arn(kind, name), IdentityRecord::arn);
    if call.access.by_resource_tags(call.caller).await.map_err(error::store)? {
        for (key, value) in call.store().tags(&arn).await.map_err(error::store)? {
            context.set(format!("aws:resourcetag/{key}"), value);
        }
    }
    call.allowed_in(&arn, context).await?;
    record.ok_or_else(|| error::no_identity(kind, name))
}

/// The identity that the request names, if the caller may do this to it.
pub(super) async fn given(call: &Call<'_>, kind: IdentityKind) -> Result<IdentityRecord, QueryError> {
    found(call, kind, named(call, kind)?).await
}

pub(super) async fn create(call: &Call<'_>, settings: IdentitySettings) -> Result<(IdentityRecord, BTreeMap<String, String>), QueryError> {
    let (kind, of) = match settings {
        IdentitySettings::User => (IdentityKind::User, IdOf::User),
        IdentitySettings::Role(_) => (IdentityKind::Role, IdOf::Role),
    };
    let name = named(call, kind)?;
    let path = call.path()?;
    let given_tags = tags::given(call)?;
    let record = IdentityRecord {
        id: IdentityId(of.random()),
        account: call.caller.account.clone(),
        name: name.to_owned(),
        path: path.to_owned(),
        created_at: call.now(),
        settings,
    };
    call.allowed_in(&record.arn(), tags::context(&given_tags)).await?;
    if call.store().count_identities(&record.account, kind).await.map_err(error::store)? >= most(kind) {
        let plural = if kind == IdentityKind::Role { "RolesPerAccount" } else { "UsersPerAccount" };
        return Err(error::limit(format!("Cannot exceed quota for {plural}: {}", most(kind))));
    }
    match call.store().insert_identity(&record).await.map_err(error::store)? {
        Written::Done => {}
        Written::Exists | Written::Absent | Written::InUse => {
            let noun = if kind == IdentityKind::Role { "Role" } else { "User" };
            return Err(error::exists(format!("{noun} with name {name} already exists.")));
        }
    }
    call.store().tag(&record.arn(), &given_tags, tags::MOST).await.map_err(error::store)?;
    call.access.changed();
    Ok((record, given_tags))
}

pub(super) async fn list(call: &Call<'_>, kind: IdentityKind, list: &str) -> Outcome {
    let (prefix, after, limit) = call.page()?;
    call.allowed(&call.arn(kind, "")).await?;
    let page = call.store().identities(&call.caller.account, kind, prefix, after, limit).await.map_err(error::store)?;
    let mut xml = Xml::default();
    // Without tags (documented).
    xml.members(list, &page.items, |member, record| views::identity(member, record, &BTreeMap::new()));
    more(&mut xml, page.next);
    Ok(Answer::Result(xml))
}

pub(super) async fn delete(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let record = given(call, kind).await?;
    match call.store().delete_identity(&record.id).await.map_err(error::store)? {
        Written::Done | Written::Absent | Written::Exists => {}
        Written::InUse => return Err(error::in_use(what_hangs_on(call, &record.id).await?)),
    }
    let arn = record.arn();
    let keys: Vec<String> = call.store().tags(&arn).await.map_err(error::store)?.into_keys().collect();
    call.store().untag(&arn, &keys).await.map_err(error::store)?;
    call.access.changed();
    Ok(Answer::Done)
}

async fn what_hangs_on(call: &Call<'_>, id: &IdentityId) -> Result<&'static str, QueryError> {
    if !call.store().attached_policies(id).await.map_err(error::store)?.is_empty() {
        return Ok("Cannot delete entity, must detach all policies first.");
    }
    if !call.store().inline_policies(id).await.map_err(error::store)?.is_empty() {
        return Ok("Cannot delete entity, must delete policies first.");
    }
    Ok("Cannot delete entity, must delete access keys first.")
}
