#![allow(clippy::unwrap_used)]
use emberbox_wire::ids::AccountId;

use super::*;
use crate::{Store, UnixMillis};

const NOW: UnixMillis = UnixMillis(1_750_000_000_000);
const ARN: &str = "arn:aws:iam::123456789012:policy/team/p";

fn account() -> AccountId {
    AccountId("123456789012".into())
}

fn user(name: &str) -> IdentityRecord {
    IdentityRecord {
        id: IdentityId(format!("AIDA{}", name.to_uppercase())),
        account: account(),
        name: name.into(),
        path: "/".into(),
        created_at: NOW,
        settings: IdentitySettings::User,
    }
}

fn role(name: &str) -> IdentityRecord {
    let settings = RoleSettings { trust: "{}".into(), description: Some("d".into()), max_session_seconds: 3600 };
    let id = IdentityId(format!("AROA{}", name.to_uppercase()));
    IdentityRecord { id, path: "/team/".into(), settings: IdentitySettings::Role(settings), ..user(name) }
}

async fn store() -> Store {
    let store = Store::in_memory().await.unwrap();
    assert!(store.insert_account(&account(), NOW).await.unwrap());
    assert!(!store.insert_account(&account(), UnixMillis(0)).await.unwrap());
    assert_eq!(store.accounts().await.unwrap(), [AccountRecord { id: account(), created_at: NOW }]);
    store
}

#[tokio::test]
async fn identities_round_trip_and_names_are_unique_by_kind() {
    let store = store().await;
    for record in [user("ada"), role("ada"), role("build")] {
        assert_eq!(store.insert_identity(&record).await.unwrap(), Written::Done);
        assert_eq!(store.identity(&account(), record.kind(), &record.name.to_uppercase()).await.unwrap().unwrap(), record);
        assert_eq!(store.identity_by_id(&record.id).await.unwrap().unwrap(), record);
    }
    assert_eq!(role("build").arn(), "arn:aws:iam::123456789012:role/team/build");
    let again = IdentityRecord { id: IdentityId("AIDAOTHER".into()), name: "ADA".into(), ..user("ada") };
    assert_eq!(store.insert_identity(&again).await.unwrap(), Written::Exists);
    assert_eq!(store.identity(&AccountId("210987654321".into()), IdentityKind::User, "ada").await.unwrap(), None);
    let page = store.identities(&account(), IdentityKind::Role, "/team/", None, 1).await.unwrap();
    assert_eq!(page.items, [role("ada")]);
    let page = store.identities(&account(), IdentityKind::Role, "/", page.next, 1).await.unwrap();
    assert_eq!((page.items, page.next), (vec![role("build")], None));
    assert_eq!(store.count_identities(&account(), IdentityKind::Role).await.unwrap(), 2);
    let settings = RoleSettings { trust: "{ }".into(), description: None, max_session_seconds: 7200 };
    assert_eq!(store.update_role(&role("build").id, &settings).await.unwrap(), Written::Done);
    assert_eq!(store.identity_by_id(&role("build").id).await.unwrap().unwrap().settings, IdentitySettings::Role(settings.clone()));
    assert_eq!(store.update_role(&user("ada").id, &settings).await.unwrap(), Written::Absent);
}

#[tokio::test]
async fn an_identity_goes_only_when_nothing_hangs_on_it() {
    let store = store().await;
    let ada = user("ada");
    store.insert_identity(&ada).await.unwrap();
    let key = AccessKeyRecord { id: "AKIAX".into(), account: account(), user: Some(ada.id.clone()), active: true, created_at: NOW };
    assert_eq!(store.insert_access_key(&key, "s", 1).await.unwrap(), Written::Done);
    assert_eq!(store.insert_access_key(&AccessKeyRecord { id: "AKIAY".into(), ..key.clone() }, "s", 1).await.unwrap(), Written::InUse);
    assert_eq!(store.access_key("AKIAX").await.unwrap(), Some((key.clone(), "s".into())));
    assert_eq!(store.root_access_key(&account()).await.unwrap(), None);
    assert_eq!(store.delete_identity(&ada.id).await.unwrap(), Written::InUse);
    assert_eq!(store.set_access_key_active(&ada.id, "AKIAX", false).await.unwrap(), Written::Done);
    assert!(!store.access_keys(&ada.id).await.unwrap()[0].active);
    assert_eq!(store.delete_access_key(&ada.id, "AKIAX").await.unwrap(), Written::Done);
    assert_eq!(store.delete_access_key(&ada.id, "AKIAX").await.unwrap(), Written::Absent);

    store.put_inline_policy(&ada.id, "p", "{}").await.unwrap();
    store.put_inline_policy(&ada.id, "P", "{ }").await.unwrap();
    assert_eq!(store.inline_policies(&ada.id).await.unwrap(), [("p".to_owned(), "{ }".to_owned())]);
    assert_eq!(store.delete_identity(&ada.id).await.unwrap(), Written::InUse);
    assert_eq!(store.delete_inline_policy(&ada.id, "p").await.unwrap(), Written::Done);
    store.attach_policy(&ada.id, ARN).await.unwrap();
    store.attach_policy(&ada.id, ARN).await.unwrap();
    assert_eq!(store.attached_policies(&ada.id).await.unwrap(), [ARN]);
    assert_eq!(store.delete_identity(&ada.id).await.unwrap(), Written::InUse);
    assert_eq!(store.detach_policy(&ada.id, ARN).await.unwrap(), Written::Done);
    assert_eq!(store.delete_identity(&ada.id).await.unwrap(), Written::Done);
    assert_eq!(store.delete_identity(&ada.id).await.unwrap(), Written::Absent);
    assert_eq!(store.insert_access_key(&key, "s", 1).await.unwrap(), Written::Absent);
    let root = AccessKeyRecord { user: None, ..key };
    assert_eq!(store.insert_access_key(&root, "r", 0).await.unwrap(), Written::Done);
    assert_eq!(store.root_access_key(&account()).await.unwrap(), Some((root, "r".into())));
}

#[tokio::test]
async fn policies_have_versions() {
    let store = store().await;
    let policy = ManagedPolicyRecord {
        id: "ANPAX".into(),
        account: account(),
        name: "p".into(),
        path: "/team/".into(),
        description: None,
        default_version: 1,
        newest_version: 1,
        created_at: NOW,
        updated_at: NOW,
    };
    assert_eq!(policy.arn(), ARN);
    assert_eq!(store.insert_managed_policy(&policy, "one").await.unwrap(), Written::Done);
    assert_eq!(
        store.insert_managed_policy(&ManagedPolicyRecord { id: "ANPAY".into(), ..policy.clone() }, "x").await.unwrap(),
        Written::Exists
    );
    assert_eq!(store.managed_policy(ARN).await.unwrap(), Some(policy.clone()));
    assert_eq!(store.insert_policy_version("ANPAX", "two", false, 2, NOW).await.unwrap(), Ok(2));
    assert_eq!(store.insert_policy_version("ANPAX", "three", true, 2, NOW).await.unwrap(), Err(Written::InUse));
    assert_eq!(store.managed_policy_document(ARN).await.unwrap().unwrap(), "one");
    assert_eq!(store.set_default_policy_version("ANPAX", 3, NOW).await.unwrap(), Written::Absent);
    assert_eq!(store.set_default_policy_version("ANPAX", 2, NOW).await.unwrap(), Written::Done);
    assert_eq!(store.managed_policy_document(ARN).await.unwrap().unwrap(), "two");
    assert_eq!(store.delete_policy_version("ANPAX", 2).await.unwrap(), Written::InUse);
    assert_eq!(store.delete_managed_policy(&policy).await.unwrap(), Written::InUse, "it has another version");
    assert_eq!(store.delete_policy_version("ANPAX", 1).await.unwrap(), Written::Done);
    assert_eq!(store.insert_policy_version("ANPAX", "three", true, 2, NOW).await.unwrap(), Ok(3), "numbers are not given again");
    assert_eq!(store.policy_versions("ANPAX").await.unwrap().iter().map(|v| v.version).collect::<Vec<_>>(), [3, 2]);
    store.delete_policy_version("ANPAX", 2).await.unwrap();
    let role = role("build");
    store.insert_identity(&role).await.unwrap();
    store.attach_policy(&role.id, ARN).await.unwrap();
    assert_eq!(store.count_attachments(ARN).await.unwrap(), 1);
    assert_eq!(store.delete_managed_policy(&policy).await.unwrap(), Written::InUse);
    store.detach_policy(&role.id, ARN).await.unwrap();
    assert_eq!(store.managed_policies(&account(), "/team/", None, 9).await.unwrap().items.len(), 1);
    assert_eq!(store.delete_managed_policy(&policy).await.unwrap(), Written::Done);
    assert_eq!(store.managed_policy(ARN).await.unwrap(), None);
}
