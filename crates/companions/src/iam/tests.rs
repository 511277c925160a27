//! Actions as their parameters, over a store in memory; that stock clients read the answers is `tests/conformance/test_iam.py`'s.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use emberbox_api::{QueryError, QueryService};
use emberbox_control::SystemClock;
use emberbox_control::access::Access;
use emberbox_store::{Store, UnixMillis};
use emberbox_wire::caller::Caller;
use emberbox_wire::ids::AccountId;

use super::Iam;

const TRUST: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}"#;
const ALLOW: &str = r#"{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}]}"#;

struct World {
    iam: Iam,
    access: Arc<Access>,
}

async fn world() -> World {
    let store = Store::in_memory().await.unwrap();
    for account in ["123456789012", "210987654321"] {
        store.insert_account(&AccountId(account.into()), UnixMillis(0)).await.unwrap();
    }
    let access = Access::open(store, "us-east-1", Arc::new(SystemClock)).await.unwrap();
    World { iam: Iam::new(access.clone()), access }
}

fn root(account: &str) -> Caller {
    Caller::root(AccountId(account.into()), "AKIAROOT")
}

impl World {
    async fn call_as(&self, caller: &Caller, action: &str, parameters: &[(&str, &str)]) -> Result<String, QueryError> {
        let mut all: BTreeMap<String, String> = parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.insert("Action".into(), action.into());
        self.iam.call(caller, &all, "request").await
    }

    async fn ok(&self, action: &str, parameters: &[(&str, &str)]) -> String {
        self.call_as(&root("123456789012"), action, parameters).await.unwrap_or_else(|error| panic!("{action}: {error:?}"))
    }

    async fn refused(&self, action: &str, parameters: &[(&str, &str)]) -> (String, u16, String) {
        let error = self.call_as(&root("123456789012"), action, parameters).await.unwrap_err();
        (error.code.into_owned(), error.status, error.message)
    }
}

fn between<'a>(text: &'a str, name: &str) -> &'a str {
    text.split_once(&format!("<{name}>")).unwrap().1.split_once(&format!("</{name}>")).unwrap().0
}

#[tokio::test]
async fn a_role_lives_and_ends() {
    let world = world().await;
    let create =
        [("RoleName", "build"), ("AssumeRolePolicyDocument", TRUST), ("Tags.member.1.Key", "team"), ("Tags.member.1.Value", "blue")];
    let made = world.ok("CreateRole", &create).await;
    assert_eq!(between(&made, "Arn"), "arn:aws:iam::123456789012:role/build");
    assert!(made.contains("<Key>team</Key><Value>blue</Value>") && between(&made, "RoleId").starts_with("AROA"));
    let (code, status, message) = world.refused("CreateRole", &create).await;
    assert_eq!((code.as_str(), status, message.as_str()), ("EntityAlreadyExists", 409, "Role with name build already exists."));
    assert_eq!(world.refused("CreateRole", &[("RoleName", "x"), ("AssumeRolePolicyDocument", ALLOW)]).await.0, "MalformedPolicyDocument");
    assert_eq!(world.refused("CreateRole", &[("AssumeRolePolicyDocument", TRUST)]).await.0, "ValidationError");

    let name = [("RoleName", "build")];
    world.ok("PutRolePolicy", &[("RoleName", "build"), ("PolicyName", "p"), ("PolicyDocument", ALLOW)]).await;
    let document = world.ok("GetRolePolicy", &[("RoleName", "build"), ("PolicyName", "p")]).await;
    assert!(between(&document, "PolicyDocument").starts_with("%7B%22Version%22"));
    world.ok("AttachRolePolicy", &[("RoleName", "build"), ("PolicyArn", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")]).await;
    assert!(world.ok("ListAttachedRolePolicies", &name).await.contains("<PolicyName>AmazonS3ReadOnlyAccess</PolicyName>"));
    let no_such = world.refused("AttachRolePolicy", &[("RoleName", "build"), ("PolicyArn", "arn:aws:iam::aws:policy/NoSuchPolicy")]).await;
    assert_eq!((no_such.0.as_str(), no_such.1), ("NoSuchEntity", 404));

    assert_eq!(world.refused("DeleteRole", &name).await.2, "Cannot delete entity, must detach all policies first.");
    world.ok("DetachRolePolicy", &[("RoleName", "build"), ("PolicyArn", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")]).await;
    assert_eq!(world.refused("DeleteRole", &name).await.2, "Cannot delete entity, must delete policies first.");
    world.ok("DeleteRolePolicy", &[("RoleName", "build"), ("PolicyName", "p")]).await;
    let foreign = world.call_as(&root("210987654321"), "GetRole", &name).await.unwrap_err();
    assert_eq!((foreign.code.as_ref(), foreign.message.as_str()), ("NoSuchEntity", "The role with name build cannot be found."));
    world.ok("DeleteRole", &name).await;
    assert_eq!(world.refused("GetRole", &name).await.0, "NoSuchEntity");
    assert_eq!(world.refused("CreateGroup", &[]).await.0, "InvalidAction");
}

#[tokio::test]
async fn a_users_key_signs_until_it_is_turned_off() {
    let world = world().await;
    let name = [("UserName", "ada")];
    world.ok("CreateUser", &name).await;
    let made = world.ok("CreateAccessKey", &name).await;
    let (id, secret) = (between(&made, "AccessKeyId").to_owned(), between(&made, "SecretAccessKey").to_owned());
    assert!(!world.ok("ListAccessKeys", &name).await.contains(&secret));
    let key = world.access.access_key(&id, None).await.unwrap();
    assert_eq!((key.secret, key.caller.arn.as_str()), (secret, "arn:aws:iam::123456789012:user/ada"));
    world.ok("CreateAccessKey", &name).await;
    assert_eq!(world.refused("CreateAccessKey", &name).await.0, "LimitExceeded");
    assert_eq!(world.refused("DeleteUser", &name).await.2, "Cannot delete entity, must delete access keys first.");

    // The user may do nothing, then read itself.
    let denied = world.call_as(&key.caller, "GetUser", &[]).await.unwrap_err();
    assert_eq!((denied.code.as_ref(), denied.status), ("AccessDenied", 403));
    let message = "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: iam:GetUser on resource: \
                   arn:aws:iam::123456789012:user/ada because no identity-based policy allows the iam:GetUser action";
    assert_eq!(denied.message, message);
    let own = r#"{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iam:Get*", "Resource": "arn:aws:iam::*:user/${aws:username}"}}"#;
    world.ok("PutUserPolicy", &[("UserName", "ada"), ("PolicyName", "own"), ("PolicyDocument", own)]).await;
    assert!(world.call_as(&key.caller, "GetUser", &[]).await.unwrap().contains("<UserName>ada</UserName>"));
    world.ok("CreateUser", &[("UserName", "bob")]).await;
    assert_eq!(world.call_as(&key.caller, "GetUser", &[("UserName", "bob")]).await.unwrap_err().code, "AccessDenied");

    world.ok("UpdateAccessKey", &[("UserName", "ada"), ("AccessKeyId", &id), ("Status", "Inactive")]).await;
    assert!(world.access.access_key(&id, None).await.is_err());
    world.ok("DeleteAccessKey", &[("UserName", "ada"), ("AccessKeyId", &id)]).await;
    assert_eq!(world.refused("DeleteAccessKey", &[("UserName", "ada"), ("AccessKeyId", &id)]).await.0, "NoSuchEntity");
}

#[tokio::test]
async fn managed_policies_have_versions_and_aws_ones_stay() {
    let world = world().await;
    world.ok("CreatePolicy", &[("PolicyName", "p"), ("PolicyDocument", ALLOW)]).await;
    let arn = ("PolicyArn", "arn:aws:iam::123456789012:policy/p");
    for _ in 0..4 {
        world.ok("CreatePolicyVersion", &[arn, ("PolicyDocument", ALLOW), ("SetAsDefault", "true")]).await;
    }
    assert_eq!(world.refused("CreatePolicyVersion", &[arn, ("PolicyDocument", ALLOW)]).await.0, "LimitExceeded");
    assert_eq!(between(&world.ok("GetPolicy", &[arn]).await, "DefaultVersionId"), "v5");
    assert_eq!(world.refused("DeletePolicyVersion", &[arn, ("VersionId", "v5")]).await.0, "DeleteConflict");
    assert_eq!(world.refused("GetPolicyVersion", &[arn, ("VersionId", "v9")]).await.0, "NoSuchEntity");
    assert!(world.refused("DeletePolicy", &[arn]).await.2.starts_with("This policy has more than one version."));
    for version in ["v1", "v2", "v3", "v4"] {
        world.ok("DeletePolicyVersion", &[arn, ("VersionId", version)]).await;
    }
    world.ok("DeletePolicy", &[arn]).await;
    let aws = ("PolicyArn", "arn:aws:iam::aws:policy/AdministratorAccess");
    assert!(world.ok("GetPolicyVersion", &[aws, ("VersionId", "v1")]).await.contains("%22Action%22%3A%20%22%2A%22"));
    assert_eq!(world.refused("DeletePolicy", &[aws]).await.0, "AccessDenied");
    let listed = world.ok("ListPolicies", &[("Scope", "AWS")]).await;
    assert!(listed.contains("arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"));
}

#[tokio::test]
async fn pages_add_up_and_limits_hold() {
    let world = world().await;
    for n in 0..3 {
        world.ok("CreateUser", &[("UserName", &format!("u{n}")), ("Path", "/team/")]).await;
    }
    let first = world.ok("ListUsers", &[("MaxItems", "2"), ("PathPrefix", "/team/")]).await;
    assert_eq!((first.matches("<UserName>").count(), between(&first, "IsTruncated")), (2, "true"));
    let rest = world.ok("ListUsers", &[("Marker", between(&first, "Marker"))]).await;
    assert_eq!((rest.matches("<UserName>").count(), between(&rest, "IsTruncated")), (1, "false"));
    assert_eq!(world.refused("ListUsers", &[("Marker", "no")]).await.0, "ValidationError");
    assert_eq!(world.refused("ListUsers", &[("MaxItems", "1001")]).await.0, "ValidationError");
    assert_eq!(world.refused("CreateUser", &[("UserName", "x"), ("Path", "team")]).await.0, "ValidationError");
    let large = format!(r#"{{"Statement": {{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::{}"}}}}"#, "x".repeat(2048));
    assert_eq!(
        world.refused("PutUserPolicy", &[("UserName", "u0"), ("PolicyName", "p"), ("PolicyDocument", &large)]).await.0,
        "LimitExceeded"
    );
}
