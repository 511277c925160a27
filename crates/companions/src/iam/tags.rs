//! Tags of users and roles.

use std::collections::BTreeMap;

use emberbox_api::QueryError;
use emberbox_control::access::policy::Context;
use emberbox_store::IdentityKind;

use super::identities::{found_in, named};
use super::{Answer, Call, Outcome, error, more, views};
use crate::query::Xml;

/// Documented.
pub(super) const MOST: usize = 50;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;

/// Those of the request.
pub(super) fn given(call: &Call<'_>) -> Result<BTreeMap<String, String>, QueryError> {
    let tags = call.parameters.tags();
    let fits = |(key, value): (&String, &String)| (1..=MAX_KEY).contains(&key.chars().count()) && value.chars().count() <= MAX_VALUE;
    match tags.iter().all(fits) {
        true if tags.len() <= MOST => Ok(tags),
        true => Err(too_many()),
        false => Err(error::invalid_input(format!("A tag's key has 1 to {MAX_KEY} characters, its value {MAX_VALUE} at most."))),
    }
}

pub(super) fn context(tags: &BTreeMap<String, String>) -> Context {
    let mut context = Context::default();
    for (key, value) in tags {
        context.set(format!("aws:requesttag/{key}"), value);
    }
    context.set_all("aws:tagkeys", tags.keys().cloned().collect());
    context
}

pub(super) async fn tag(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let tags = given(call)?;
    let arn = found_in(call, kind, named(call, kind)?, context(&tags)).await?.arn();
    match call.store().tag(&arn, &tags, MOST).await.map_err(error::store)? {
        true => Ok(Answer::Done),
        false => Err(too_many()),
    }
}

pub(super) async fn untag(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let keys: Vec<String> = call.parameters.list("TagKeys").into_iter().map(str::to_owned).collect();
    let mut context = Context::default();
    context.set_all("aws:tagkeys", keys.clone());
    let arn = found_in(call, kind, named(call, kind)?, context).await?.arn();
    call.store().untag(&arn, &keys).await.map_err(error::store)?;
    Ok(Answer::Done)
}

pub(super) async fn list(call: &Call<'_>, kind: IdentityKind) -> Outcome {
    let identity = super::identities::given(call, kind).await?;
    let tags = call.store().tags(&identity.arn()).await.map_err(error::store)?;
    let mut xml = Xml::default();
    if tags.is_empty() {
        xml.element("Tags", |_| {});
    }
    views::tags(&mut xml, &tags);
    more(&mut xml, None);
    Ok(Answer::Result(xml))
}

fn too_many() -> QueryError {
    error::limit(format!("The number of tags has exceeded the {MOST} limit."))
}
