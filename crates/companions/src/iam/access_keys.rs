//! Access keys of users. A secret is in the answer that makes it and in no other.

use emberbox_control::access::ids::{IdOf, random_secret};
use emberbox_store::{AccessKeyRecord, Written};

use super::users::given_or_caller;
use super::{Answer, Call, Outcome, error, more};
use crate::query::{Text, Xml, invalid, iso8601};

/// Documented.
const MOST: u32 = 2;
const KEY_ID: Text = Text { min: 16, max: 128, also: Some("") };

pub(super) async fn create(call: &Call<'_>) -> Outcome {
    let user = given_or_caller(call).await?;
    let (created_at, secret) = (call.now(), random_secret());
    let id = IdOf::AccessKey.random();
    let key = AccessKeyRecord { id, account: user.account.clone(), user: Some(user.id.clone()), active: true, created_at };
    match call.store().insert_access_key(&key, &secret, MOST).await.map_err(error::store)? {
        Written::Done | Written::Exists => {}
        Written::InUse => return Err(error::limit(format!("Cannot exceed quota for AccessKeysPerUser: {MOST}"))),
        Written::Absent => return Err(error::no_identity(emberbox_store::IdentityKind::User, &user.name)),
    }
    call.access.changed();
    let mut xml = Xml::default();
    xml.element("AccessKey", |member| {
        view(member, &user.name, &key);
        member.text("SecretAccessKey", &secret);
    });
    Ok(Answer::Result(xml))
}

pub(super) async fn list(call: &Call<'_>) -> Outcome {
    let user = given_or_caller(call).await?;
    let keys = call.store().access_keys(&user.id).await.map_err(error::store)?;
    let mut xml = Xml::default();
    xml.members("AccessKeyMetadata", &keys, |member, key| view(member, &user.name, key));
    more(&mut xml, None);
    Ok(Answer::Result(xml))
}

pub(super) async fn update(call: &Call<'_>) -> Outcome {
    let id = call.parameters.required("AccessKeyId", KEY_ID)?;
    let active = match call.parameters.required("Status", Text::anything(1, 16))? {
        "Active" => true,
        "Inactive" => false,
        other => {
            return Err(invalid(format!(
                "1 validation error detected: Value '{other}' at 'status' failed to satisfy constraint: Member must satisfy enum value set: \
                 [Active, Inactive]"
            )));
        }
    };
    let user = given_or_caller(call).await?;
    let written = call.store().set_access_key_active(&user.id, id, active).await.map_err(error::store)?;
    ended(call, written, id)
}

pub(super) async fn delete(call: &Call<'_>) -> Outcome {
    let id = call.parameters.required("AccessKeyId", KEY_ID)?;
    let user = given_or_caller(call).await?;
    let written = call.store().delete_access_key(&user.id, id).await.map_err(error::store)?;
    ended(call, written, id)
}

fn ended(call: &Call<'_>, written: Written, id: &str) -> Outcome {
    match written {
        Written::Done => {
            call.access.changed();
            Ok(Answer::Done)
        }
        Written::Absent | Written::Exists | Written::InUse => Err(error::absent(format!("The Access Key with id {id} cannot be found."))),
    }
}

fn view(xml: &mut Xml, user: &str, key: &AccessKeyRecord) {
    xml.text("UserName", user)
        .text("AccessKeyId", &key.id)
        .text("Status", if key.active { "Active" } else { "Inactive" })
        .text("CreateDate", iso8601(key.created_at));
}
