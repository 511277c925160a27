//! Managed policies: the account's own, and AWS's, which are there to be read and attached.

use emberbox_api::QueryError;
use emberbox_control::access::ids::IdOf;
use emberbox_control::access::policy::Document;
use emberbox_control::access::{AwsManagedPolicy, aws_managed_policies, aws_managed_policy};
use emberbox_store::{ManagedPolicyRecord, PolicyVersionRecord, UnixMillis, Written};
use emberbox_wire::ids::AccountId;

use super::attached::POLICY_ARN;
use super::inline::{MAX_DOCUMENT, POLICY_NAME, characters};
use super::{Answer, Call, Outcome, error, more, views};
use crate::query::{Text, Xml, invalid, iso8601};

/// White space not counted (documented).
const MAX_CHARACTERS: usize = 6144;
/// Documented.
const MOST_VERSIONS: u32 = 5;
const VERSION_ID: Text = Text { min: 2, max: 32, also: Some(".-") };

pub(super) async fn create(call: &Call<'_>) -> Outcome {
    let name = call.parameters.required("PolicyName", POLICY_NAME)?;
    let description = call.parameters.optional("Description", Text::anything(0, 1000))?.map(str::to_owned);
    let (path, document, now) = (call.path()?.to_owned(), document(call)?, call.now());
    if call.parameters.0.contains_key("Tags.member.1.Key") {
        return Err(error::invalid_input("Emberbox has no tags of policies: leave Tags out"));
    }
    let record = ManagedPolicyRecord {
        id: IdOf::Policy.random(),
        account: call.caller.account.clone(),
        name: name.to_owned(),
        path,
        description,
        default_version: 1,
        newest_version: 1,
        created_at: now,
        updated_at: now,
    };
    call.allowed(&record.arn()).await?;
    match call.store().insert_managed_policy(&record, document).await.map_err(error::store)? {
        Written::Done => {}
        Written::Exists | Written::Absent | Written::InUse => {
            return Err(error::exists(format!("A policy called {name} already exists. Duplicate names are not allowed.")));
        }
    }
    let mut xml = Xml::default();
    xml.element("Policy", |policy| views::policy(policy, &record, 0));
    Ok(Answer::Result(xml))
}

pub(super) async fn get(call: &Call<'_>) -> Outcome {
    let record = readable(call).await?.0;
    let attachments = call.store().count_attachments(&record.arn()).await.map_err(error::store)?;
    let mut xml = Xml::default();
    xml.element("Policy", |policy| views::policy(policy, &record, attachments));
    Ok(Answer::Result(xml))
}

pub(super) async fn list(call: &Call<'_>) -> Outcome {
    let (prefix, after, limit) = call.page()?;
    let (own, aws) = match call.parameters.optional("Scope", Text::anything(1, 16))?.unwrap_or("All") {
        "All" => (true, true),
        "Local" => (true, false),
        "AWS" => (false, true),
        other => {
            return Err(invalid(format!(
                "1 validation error detected: Value '{other}' at 'scope' failed to satisfy constraint: Member must satisfy enum value set: \
                 [All, AWS, Local]"
            )));
        }
    };
    call.allowed(&format!("arn:aws:iam::{}:policy/", call.caller.account)).await?;
    let mut records = Vec::new();
    // AWS's few come whole on the first page.
    if aws && after.is_none() {
        records.extend(aws_managed_policies().iter().filter(|policy| policy.path.starts_with(prefix)).map(aws_record));
    }
    let mut next = None;
    if own {
        let page = call.store().managed_policies(&call.caller.account, prefix, after, limit).await.map_err(error::store)?;
        records.extend(page.items);
        next = page.next;
    }
    let only_attached = call.parameters.flag("OnlyAttached");
    let mut counted = Vec::new();
    for record in records {
        let attachments = call.store().count_attachments(&record.arn()).await.map_err(error::store)?;
        if attachments > 0 || !only_attached {
            counted.push((record, attachments));
        }
    }
    let mut xml = Xml::default();
    xml.members("Policies", &counted, |member, (record, attachments)| views::policy(member, record, *attachments));
    more(&mut xml, next);
    Ok(Answer::Result(xml))
}

pub(super) async fn delete(call: &Call<'_>) -> Outcome {
    let record = own(call).await?;
    match call.store().delete_managed_policy(&record).await.map_err(error::store)? {
        Written::Done | Written::Absent | Written::Exists => {}
        Written::InUse if call.store().count_attachments(&record.arn()).await.map_err(error::store)? > 0 => {
            return Err(error::in_use("Cannot delete a policy attached to entities."));
        }
        Written::InUse => {
            return Err(error::in_use(
                "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. The default version is \
                 deleted with the policy.",
            ));
        }
    }
    call.access.changed();
    Ok(Answer::Done)
}

pub(super) async fn create_version(call: &Call<'_>) -> Outcome {
    let document = document(call)?;
    let record = own(call).await?;
    let (make_default, now) = (call.parameters.flag("SetAsDefault"), call.now());
    let added = call.store().insert_policy_version(&record.id, document, make_default, MOST_VERSIONS, now).await.map_err(error::store)?;
    let version = added.map_err(|written| match written {
        Written::InUse => error::limit(format!(
            "A managed policy can have up to {MOST_VERSIONS} versions. Before you create a new version, you must delete an existing version."
        )),
        Written::Done | Written::Exists | Written::Absent => no_policy(&record.arn()),
    })?;
    call.access.changed();
    let mut xml = Xml::default();
    let default = if make_default { version } else { record.default_version };
    let written = PolicyVersionRecord { version, document: String::new(), created_at: now };
    xml.element("PolicyVersion", |member| version_view(member, &written, default));
    Ok(Answer::Result(xml))
}

pub(super) async fn get_version(call: &Call<'_>) -> Outcome {
    let wanted = call.parameters.required("VersionId", VERSION_ID)?;
    let (record, versions) = readable(call).await?;
    let version = versions.iter().find(|version| format!("v{}", version.version) == wanted).ok_or_else(|| no_version(&record, wanted))?;
    let mut xml = Xml::default();
    xml.element("PolicyVersion", |member| {
        member.text("Document", views::document(&version.document));
        version_view(member, version, record.default_version);
    });
    Ok(Answer::Result(xml))
}

pub(super) async fn list_versions(call: &Call<'_>) -> Outcome {
    let (record, versions) = readable(call).await?;
    let mut xml = Xml::default();
    xml.members("Versions", &versions, |member, version| version_view(member, version, record.default_version));
    more(&mut xml, None);
    Ok(Answer::Result(xml))
}

pub(super) async fn set_default_version(call: &Call<'_>) -> Outcome {
    let wanted = call.parameters.required("VersionId", VERSION_ID)?;
    let record = own(call).await?;
    let number = number(wanted).ok_or_else(|| no_version(&record, wanted))?;
    match call.store().set_default_policy_version(&record.id, number, call.now()).await.map_err(error::store)? {
        Written::Done => {
            call.access.changed();
            Ok(Answer::Done)
        }
        Written::Absent | Written::Exists | Written::InUse => Err(no_version(&record, wanted)),
    }
}

pub(super) async fn delete_version(call: &Call<'_>) -> Outcome {
    let wanted = call.parameters.required("VersionId", VERSION_ID)?;
    let record = own(call).await?;
    let number = number(wanted).ok_or_else(|| no_version(&record, wanted))?;
    match call.store().delete_policy_version(&record.id, number).await.map_err(error::store)? {
        Written::Done => Ok(Answer::Done),
        Written::InUse => Err(error::in_use("Cannot delete the default version of a policy.")),
        Written::Absent | Written::Exists => Err(no_version(&record, wanted)),
    }
}

fn document<'a>(call: &Call<'a>) -> Result<&'a str, QueryError> {
    let document = call.parameters.required("PolicyDocument", Text::anything(1, MAX_DOCUMENT))?;
    Document::identity(document).map_err(error::malformed)?;
    match characters(document) {
        0..=MAX_CHARACTERS => Ok(document),
        _ => Err(error::limit(format!("Cannot exceed quota for PolicySize: {MAX_CHARACTERS}"))),
    }
}

/// A policy of the caller's account.
async fn own(call: &Call<'_>) -> Result<ManagedPolicyRecord, QueryError> {
    let arn = call.parameters.required("PolicyArn", POLICY_ARN)?;
    call.allowed(arn).await?;
    if aws_managed_policy(arn).is_some() {
        return Err(QueryError::new("AccessDenied", 403, format!("{arn} is AWS's own and cannot be changed.")));
    }
    let record = call.store().managed_policy(arn).await.map_err(error::store)?;
    record.filter(|record| record.account == call.caller.account).ok_or_else(|| no_policy(arn))
}

/// A policy of the caller's account or of AWS, and its versions.
async fn readable(call: &Call<'_>) -> Result<(ManagedPolicyRecord, Vec<PolicyVersionRecord>), QueryError> {
    let arn = call.parameters.required("PolicyArn", POLICY_ARN)?;
    if let Some(policy) = aws_managed_policy(arn) {
        call.allowed(arn).await?;
        let version = PolicyVersionRecord { version: 1, document: policy.document.to_owned(), created_at: UnixMillis(0) };
        return Ok((aws_record(policy), vec![version]));
    }
    let record = own(call).await?;
    let versions = call.store().policy_versions(&record.id).await.map_err(error::store)?;
    Ok((record, versions))
}

/// Their ids are theirs alone at AWS; here the name stands for it.
fn aws_record(policy: &AwsManagedPolicy) -> ManagedPolicyRecord {
    let padded: String =
        policy.name.to_ascii_uppercase().chars().filter(char::is_ascii_alphanumeric).chain("X".repeat(17).chars()).take(17).collect();
    ManagedPolicyRecord {
        id: format!("ANPA{padded}"),
        account: AccountId("aws".into()),
        name: policy.name.to_owned(),
        path: policy.path.to_owned(),
        description: None,
        default_version: 1,
        newest_version: 1,
        created_at: UnixMillis(0),
        updated_at: UnixMillis(0),
    }
}

fn version_view(xml: &mut Xml, version: &PolicyVersionRecord, default: u32) {
    xml.text("VersionId", format!("v{}", version.version))
        .text("IsDefaultVersion", (version.version == default).to_string())
        .text("CreateDate", iso8601(version.created_at));
}

fn number(version: &str) -> Option<u32> {
    version.strip_prefix('v')?.parse().ok()
}

fn no_policy(arn: &str) -> QueryError {
    error::absent(format!("Policy {arn} was not found."))
}

fn no_version(record: &ManagedPolicyRecord, version: &str) -> QueryError {
    error::absent(format!("Policy {} version {version} does not exist or is not attachable.", record.arn()))
}
