//! Roles.

use emberbox_api::QueryError;
use emberbox_control::access::policy::Document;
use emberbox_store::{IdentityKind, IdentityRecord, IdentitySettings, RoleSettings};

use super::identities::{self, given};
use super::inline::{MAX_DOCUMENT, characters};
use super::{Answer, Call, Outcome, error, more, views};
use crate::query::{Text, Xml, invalid};

/// Of `MaxSessionDuration` (model), and when it is not given (documented).
const SESSION_RANGE: std::ops::RangeInclusive<u32> = 3600..=43_200;
const SESSION_SECONDS: u32 = 3600;
/// Of a trust policy, white space not counted (documented).
const MAX_TRUST: usize = 2048;
const DESCRIPTION: Text = Text::anything(0, 1000);

pub(super) async fn create(call: &Call<'_>) -> Outcome {
    let settings = RoleSettings {
        trust: trust(call, "AssumeRolePolicyDocument")?,
        description: call.parameters.optional("Description", DESCRIPTION)?.map(str::to_owned),
        max_session_seconds: call.parameters.number("MaxSessionDuration", SESSION_RANGE)?.unwrap_or(SESSION_SECONDS),
    };
    if call.parameters.0.contains_key("PermissionsBoundary") {
        return Err(error::invalid_input("Emberbox has no permissions boundaries: leave PermissionsBoundary out"));
    }
    let (record, tags) = identities::create(call, IdentitySettings::Role(settings)).await?;
    let mut xml = Xml::default();
    xml.element("Role", |role| views::identity(role, &record, &tags));
    Ok(Answer::Result(xml))
}

pub(super) async fn get(call: &Call<'_>) -> Outcome {
    let record = given(call, IdentityKind::Role).await?;
    let tags = call.store().tags(&record.arn()).await.map_err(error::store)?;
    let mut xml = Xml::default();
    xml.element("Role", |role| {
        views::identity(role, &record, &tags);
        // When a role was last used is not recorded: the member is there and empty, as AWS has it of a role never used.
        role.element("RoleLastUsed", |_| {});
    });
    Ok(Answer::Result(xml))
}

pub(super) async fn list(call: &Call<'_>) -> Outcome {
    identities::list(call, IdentityKind::Role, "Roles").await
}

pub(super) async fn update(call: &Call<'_>) -> Outcome {
    let (record, settings) = role(call).await?;
    let description = call.parameters.optional("Description", DESCRIPTION)?.map(str::to_owned).or(settings.description);
    let max_session_seconds = call.parameters.number("MaxSessionDuration", SESSION_RANGE)?.unwrap_or(settings.max_session_seconds);
    write(call, &record, RoleSettings { description, max_session_seconds, ..settings }).await?;
    // An empty result, unlike most updates (model).
    Ok(Answer::Result(Xml::default()))
}

pub(super) async fn update_description(call: &Call<'_>) -> Outcome {
    let (record, settings) = role(call).await?;
    let settings = RoleSettings { description: Some(call.parameters.required("Description", DESCRIPTION)?.to_owned()), ..settings };
    let record = write(call, &record, settings).await?;
    let tags = call.store().tags(&record.arn()).await.map_err(error::store)?;
    let mut xml = Xml::default();
    xml.element("Role", |role| views::identity(role, &record, &tags));
    Ok(Answer::Result(xml))
}

pub(super) async fn update_trust(call: &Call<'_>) -> Outcome {
    let trust = trust(call, "PolicyDocument")?;
    let (record, settings) = role(call).await?;
    write(call, &record, RoleSettings { trust, ..settings }).await?;
    Ok(Answer::Done)
}

/// There are none; tools ask before they delete a role.
pub(super) async fn list_instance_profiles(call: &Call<'_>) -> Outcome {
    given(call, IdentityKind::Role).await?;
    let mut xml = Xml::default();
    xml.element("InstanceProfiles", |_| {});
    more(&mut xml, None);
    Ok(Answer::Result(xml))
}

async fn role(call: &Call<'_>) -> Result<(IdentityRecord, RoleSettings), QueryError> {
    let record = given(call, IdentityKind::Role).await?;
    match record.settings.clone() {
        IdentitySettings::Role(settings) => Ok((record, settings)),
        IdentitySettings::User => Err(error::no_identity(IdentityKind::Role, &record.name)),
    }
}

async fn write(call: &Call<'_>, record: &IdentityRecord, settings: RoleSettings) -> Result<IdentityRecord, QueryError> {
    call.store().update_role(&record.id, &settings).await.map_err(error::store)?;
    call.access.changed();
    Ok(IdentityRecord { settings: IdentitySettings::Role(settings), ..record.clone() })
}

fn trust(call: &Call<'_>, name: &str) -> Result<String, QueryError> {
    let text = call.parameters.required(name, Text::anything(1, MAX_DOCUMENT))?;
    Document::trust(text).map_err(error::malformed)?;
    if characters(text) > MAX_TRUST {
        return Err(error::limit(format!("Cannot exceed quota for ACLSizePerRole: {MAX_TRUST}")));
    }
    if text.contains('\0') {
        return Err(invalid("The policy document holds a NUL character."));
    }
    Ok(text.to_owned())
}
