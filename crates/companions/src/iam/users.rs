//! Users.

use emberbox_api::QueryError;
use emberbox_store::{IdentityKind, IdentityRecord, IdentitySettings};
use emberbox_wire::caller::Principal;

use super::identities::{self, found, name_parameter, named};
use super::{Answer, Call, Outcome, error, views};
use crate::query::{Xml, invalid};

pub(super) async fn create(call: &Call<'_>) -> Outcome {
    if call.parameters.0.contains_key("PermissionsBoundary") {
        return Err(error::invalid_input("Emberbox has no permissions boundaries: leave PermissionsBoundary out"));
    }
    let (record, tags) = identities::create(call, IdentitySettings::User).await?;
    let mut xml = Xml::default();
    xml.element("User", |user| views::identity(user, &record, &tags));
    Ok(Answer::Result(xml))
}

pub(super) async fn get(call: &Call<'_>) -> Outcome {
    let record = given_or_caller(call).await?;
    let tags = call.store().tags(&record.arn()).await.map_err(error::store)?;
    let mut xml = Xml::default();
    xml.element("User", |user| views::identity(user, &record, &tags));
    Ok(Answer::Result(xml))
}

pub(super) async fn list(call: &Call<'_>) -> Outcome {
    identities::list(call, IdentityKind::User, "Users").await
}

/// Without a name, the user who asks (documented).
pub(super) async fn given_or_caller(call: &Call<'_>) -> Result<IdentityRecord, QueryError> {
    match (call.parameters.0.contains_key(name_parameter(IdentityKind::User)), &call.caller.principal) {
        (true, _) => found(call, IdentityKind::User, named(call, IdentityKind::User)?).await,
        (false, Principal::User(user)) => found(call, IdentityKind::User, &user.name).await,
        (false, Principal::Root | Principal::AssumedRole { .. }) => {
            Err(invalid("Must specify userName when calling with non-User credentials"))
        }
    }
}
