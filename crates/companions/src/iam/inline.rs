//! Policies that belong to one user or role.

use emberbox_control::access::policy::Document;
use emberbox_store::{IdentityKind, Written};

use super::identities::{given, name_parameter};
use super::{Answer, Call, Outcome, error, more, views, word};
use crate::query::{Text, Xml};

pub(super) const POLICY_NAME: Text = Text::name(1, 128);
/// Of a document as it is sent (model).
pub(super) const MAX_DOCUMENT: usize = 131_072;

/// Of all inline policies together, white space not counted (documented).
fn most_characters(kind: IdentityKind) -> usize {
    match kind {
        IdentityKind::User => 2048,
        IdentityKind::Role => 10_240,
    }
}

/// White space does not count (documented).
pub(super) fn characters(document: &str) -> usize {
    document.chars().filter(|c| !c.is_whitespace()).count()
}

pub(super) async fn put(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let name = call.parameters.required("PolicyName", POLICY_NAME)?;
    let document = call.parameters.required("PolicyDocument", Text::anything(1, MAX_DOCUMENT))?;
    Document::identity(document).map_err(error::malformed)?;
    let identity = given(call, kind).await?;
    let others = call.store().inline_policies(&identity.id).await.map_err(error::store)?;
    let others: usize =
        others.iter().filter(|(other, _)| !other.eq_ignore_ascii_case(name)).map(|(_, document)| characters(document)).sum();
    let most = most_characters(kind);
    if others + characters(document) > most {
        return Err(error::limit(format!("Maximum policy size of {most} bytes exceeded for {} {}", word(kind), identity.name)));
    }
    call.store().put_inline_policy(&identity.id, name, document).await.map_err(error::store)?;
    call.access.changed();
    Ok(Answer::Done)
}

pub(super) async fn get(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let name = call.parameters.required("PolicyName", POLICY_NAME)?;
    let identity = given(call, kind).await?;
    let policy = call.store().inline_policy(&identity.id, name).await.map_err(error::store)?;
    let (name, document) = policy.ok_or_else(|| absent(kind, name))?;
    let mut xml = Xml::default();
    xml.text(name_parameter(kind), &identity.name).text("PolicyName", name).text("PolicyDocument", views::document(&document));
    Ok(Answer::Result(xml))
}

pub(super) async fn list(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let identity = given(call, kind).await?;
    let policies = call.store().inline_policies(&identity.id).await.map_err(error::store)?;
    let mut xml = Xml::default();
    xml.element("PolicyNames", |names| {
        policies.iter().for_each(|(name, _)| {
            names.text("member", name);
        })
    });
    more(&mut xml, None);
    Ok(Answer::Result(xml))
}

pub(super) async fn delete(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let name = call.parameters.required("PolicyName", POLICY_NAME)?;
    let identity = given(call, kind).await?;
    match call.store().delete_inline_policy(&identity.id, name).await.map_err(error::store)? {
        Written::Done => {
            call.access.changed();
            Ok(Answer::Done)
        }
        Written::Absent | Written::Exists | Written::InUse => Err(absent(kind, name)),
    }
}

fn absent(kind: IdentityKind, name: &str) -> emberbox_api::QueryError {
    error::absent(format!("The {} policy with name {name} cannot be found.", word(kind)))
}
