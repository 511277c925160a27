//! Callers with narrow policies through [`Control::authorize`], roles, and sessions, over a store in memory.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use emberbox_store::{AccessKeyRecord, IdentityId, IdentityRecord, IdentitySettings, RoleSettings, UnixMillis};
use emberbox_wire::caller::Caller;
use emberbox_wire::error::{ApiError, ErrorCode};
use emberbox_wire::ids::AccountId;
use serde_json::{Value, json};

use super::roles::{AssumeRole, AssumeRoleError, RoleError};
use super::*;
use crate::tests::{ARN, World, caller, definition, with};

const ROLE: &str = "arn:aws:iam::123456789012:role/worker";

fn account() -> AccountId {
    AccountId("123456789012".into())
}

fn identity(id: &str, name: &str, settings: IdentitySettings) -> IdentityRecord {
    let created_at = UnixMillis(0);
    IdentityRecord { id: IdentityId(id.into()), account: account(), name: name.into(), path: "/".into(), created_at, settings }
}

fn policy(statements: Value) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

/// A user `ada` with a key `AKIAADA` and this policy.
async fn ada(world: &World, statements: Value) -> Caller {
    let store = &world.parts.store;
    let user = identity("AIDAADA", "ada", IdentitySettings::User);
    store.insert_identity(&user).await.unwrap();
    let key =
        AccessKeyRecord { id: "AKIAADA".into(), account: account(), user: Some(user.id.clone()), active: true, created_at: UnixMillis(0) };
    store.insert_access_key(&key, "secret", 9).await.unwrap();
    give(world, statements).await;
    world.control.access().access_key("AKIAADA", None).await.unwrap().caller
}

async fn give(world: &World, statements: Value) {
    world.parts.store.put_inline_policy(&IdentityId("AIDAADA".into()), "p", &policy(statements)).await.unwrap();
    world.control.access().changed();
}

async fn role(world: &World, trust: Value, statements: Value) {
    let settings = RoleSettings { trust: policy(json!([trust])), description: None, max_session_seconds: 7200 };
    let record = identity("AROAWORKER", "worker", IdentitySettings::Role(settings));
    world.parts.store.insert_identity(&record).await.unwrap();
    world.parts.store.put_inline_policy(&record.id, "p", &policy(statements)).await.unwrap();
    world.control.access().changed();
}

async fn denied(world: &World, caller: &Caller, operation: &str, input: Value) -> String {
    let error: ApiError = world.control.authorize(caller, operation, &input).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::AccessDenied);
    error.message
}

async fn allowed(world: &World, caller: &Caller, operation: &str, input: Value) {
    world.control.authorize(caller, operation, &input).await.unwrap_or_else(|error| panic!("{operation}: {error}"));
}

#[tokio::test]
async fn a_refusal_is_in_awss_words() {
    let world = World::with_image().await;
    let ada = ada(&world, json!([{"Effect": "Allow", "Action": "lambda:List*", "Resource": "*"}])).await;
    assert_eq!(ada.arn, "arn:aws:iam::123456789012:user/ada");
    allowed(&world, &ada, "ListMicrovms", json!({})).await;
    assert_eq!(
        denied(&world, &ada, "GetMicrovmImage", json!({"imageIdentifier": ARN})).await,
        format!(
            "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: lambda:GetMicrovmImage on resource: {ARN} because no \
             identity-based policy allows the lambda:GetMicrovmImage action"
        )
    );
    give(&world, json!([{"Effect": "Deny", "Action": "*", "Resource": "*"}])).await;
    assert_eq!(
        denied(&world, &ada, "ListMicrovms", json!({})).await,
        "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: lambda:ListMicrovms on resource: * with an explicit deny in an \
         identity-based policy"
    );
    allowed(&world, &caller("123456789012"), "GetMicrovmImage", json!({"imageIdentifier": ARN})).await;
}

#[tokio::test]
async fn a_microvm_is_its_images_or_itself() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    let get = json!({"microvmIdentifier": id});
    let ada = ada(&world, json!([{"Effect": "Allow", "Action": "lambda:*Microvm", "Resource": ARN}])).await;
    allowed(&world, &ada, "GetMicrovm", get.clone()).await;
    for resource in [format!("arn:aws:lambda:us-east-1:123456789012:microvm:{id}"), "arn:aws:lambda:*:*:microvm:*".into()] {
        give(&world, json!([{"Effect": "Allow", "Action": "lambda:GetMicrovm", "Resource": resource}])).await;
        allowed(&world, &ada, "GetMicrovm", get.clone()).await;
    }
    assert!(denied(&world, &ada, "TerminateMicrovm", get.clone()).await.contains(&format!("on resource: {ARN} because")));
    give(&world, json!([{"Effect": "Allow", "Action": "lambda:*", "NotResource": ARN}])).await;
    denied(&world, &ada, "GetMicrovm", get.clone()).await;
    world.change("TerminateMicrovm", id).await;
    world.state(id, "TERMINATED").await;
    denied(&world, &ada, "GetMicrovm", get).await;
}

#[tokio::test]
async fn what_is_not_the_accounts_is_absent_rather_than_denied() {
    let world = World::with_image().await;
    let ada = ada(&world, json!([{"Effect": "Allow", "Action": "lambda:Get*", "Resource": ARN}])).await;
    let foreign = "arn:aws:lambda:us-east-1:210987654321:microvm-image:web";
    for input in [json!({"imageIdentifier": foreign}), json!({"imageIdentifier": "web"})] {
        allowed(&world, &ada, "GetMicrovmImage", input).await;
    }
    allowed(&world, &ada, "GetMicrovm", json!({"microvmIdentifier": "microvm-00000000-0000-4000-8000-000000000000"})).await;
    denied(&world, &ada, "DeleteMicrovmImage", json!({"imageIdentifier": foreign})).await;
}

#[tokio::test]
async fn what_is_passed_on_has_to_be_allowed() {
    let world = World::with_image().await;
    let run = json!({"imageIdentifier": ARN, "executionRoleArn": "arn:aws:iam::123456789012:role/run"});
    let on_image = json!({"Effect": "Allow", "Action": "lambda:RunMicrovm", "Resource": ARN});
    let connectors = json!({"Effect": "Allow", "Action": "lambda:PassNetworkConnector",
        "Resource": "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:*"});
    let pass = json!({"Effect": "Allow", "Action": "iam:PassRole", "Resource": "arn:aws:iam::123456789012:role/run",
        "Condition": {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}});
    let ada = ada(&world, json!([on_image])).await;
    assert!(
        denied(&world, &ada, "RunMicrovm", run.clone())
            .await
            .contains("perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/run")
    );
    give(&world, json!([on_image, pass])).await;
    assert!(denied(&world, &ada, "RunMicrovm", run.clone()).await.contains(
        "lambda:PassNetworkConnector on resource: arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:HTTP_INGRESS"
    ));
    give(&world, json!([on_image, pass, connectors])).await;
    allowed(&world, &ada, "RunMicrovm", run.clone()).await;
    give(&world, json!([on_image, pass, connectors, {"Effect": "Deny", "Action": "lambda:PassNetworkConnector", "Resource": "arn:*:INTERNET_EGRESS"}])).await;
    assert!(denied(&world, &ada, "RunMicrovm", run).await.ends_with("with an explicit deny in an identity-based policy"));
}

#[tokio::test]
async fn tags_of_requests_and_resources_count() {
    let world = World::with_image().await;
    let create = with(definition(), json!({"name": "other", "tags": {"team": "blue"}}));
    let pass = json!({"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*"});
    let only_blue = json!({"Effect": "Allow", "Action": ["lambda:CreateMicrovmImage", "lambda:TagResource"], "Resource": "*",
        "Condition": {"StringEquals": {"aws:RequestTag/team": "blue"}, "ForAllValues:StringEquals": {"aws:TagKeys": "team"}}});
    let ada = ada(&world, json!([pass, only_blue])).await;
    allowed(&world, &ada, "CreateMicrovmImage", create.clone()).await;
    denied(&world, &ada, "CreateMicrovmImage", with(create.clone(), json!({"tags": {"team": "red"}}))).await;
    denied(&world, &ada, "CreateMicrovmImage", with(create.clone(), json!({"tags": {"team": "blue", "x": "y"}}))).await;
    give(&world, json!([pass, {"Effect": "Allow", "Action": "lambda:CreateMicrovmImage", "Resource": "*"}])).await;
    assert!(denied(&world, &ada, "CreateMicrovmImage", create).await.contains("lambda:TagResource"));

    give(&world, json!([{"Effect": "Allow", "Action": "lambda:*", "Resource": "*", "Condition": {"StringEquals": {"aws:ResourceTag/owner": "${aws:username}"}}}])).await;
    let get = json!({"imageIdentifier": ARN});
    denied(&world, &ada, "GetMicrovmImage", get.clone()).await;
    world.ok("TagResource", json!({"Resource": ARN, "Tags": {"owner": "ada"}})).await;
    allowed(&world, &ada, "GetMicrovmImage", get).await;
}

#[tokio::test]
async fn a_role_passed_to_lambda_exists_and_trusts_it() {
    let world = World::new().await;
    let access = world.control.access();
    role(&world, json!({"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole",
        "Condition": {"StringEquals": {"aws:SourceAccount": "123456789012"}, "ArnLike": {"aws:SourceArn": "arn:aws:lambda:*:123456789012:microvm-image:*"}}}),
        json!([{"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*"}])).await;
    access.passable(&account(), ROLE, ARN).await.unwrap();
    let passed = |account: &str, arn: &str| {
        let (access, account, arn) = (access.clone(), AccountId(account.into()), arn.to_owned());
        async move { access.passable(&account, &arn, ARN).await }
    };
    assert!(matches!(passed("210987654321", ROLE).await, Err(RoleError::OtherAccount)));
    assert!(matches!(passed("123456789012", "arn:aws:iam::123456789012:role/none").await, Err(RoleError::Absent(_))));
    assert!(matches!(passed("123456789012", "arn:aws:iam::123456789012:role/path/worker").await, Err(RoleError::Absent(_))));
    access.build_may(&account(), ROLE, "s3:GetObject", "arn:aws:s3:::b/k").await.unwrap();
    assert!(access.build_may(&account(), ROLE, "s3:GetObject", "arn:aws:s3:::other/k").await.is_err());
    assert!(access.build_may(&AccountId("210987654321".into()), ROLE, "s3:GetObject", "arn:aws:s3:::b/k").await.is_err());

    // The operations ask it.
    let absent = with(definition(), json!({"name": "n", "buildRoleArn": "arn:aws:iam::123456789012:role/none"}));
    let (code, message) = world.refused("CreateMicrovmImage", absent).await;
    assert_eq!(
        (code, message.as_str()),
        (ErrorCode::Validation, "The role arn:aws:iam::123456789012:role/none cannot be assumed by Lambda: it does not exist")
    );
    let foreign = with(definition(), json!({"name": "n", "buildRoleArn": "arn:aws:iam::210987654321:role/build"}));
    assert_eq!(
        world.refused("CreateMicrovmImage", foreign).await,
        (ErrorCode::AccessDenied, "Cross-account pass role is not allowed.".into())
    );
}

#[tokio::test]
async fn a_role_that_trusts_somebody_else_is_not_lambdas() {
    let world = World::with_image().await;
    role(&world, json!({"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole"}), json!([])).await;
    let (code, message) = world.refused("RunMicrovm", json!({"imageIdentifier": ARN, "executionRoleArn": ROLE})).await;
    assert_eq!(code, ErrorCode::Validation);
    assert!(message.contains("cannot be assumed by Lambda: its trust policy does not allow lambda.amazonaws.com"), "{message}");
}

async fn assume(world: &World, caller: &Caller, duration_seconds: u32, policy: Option<&str>) -> Result<roles::Assumed, AssumeRoleError> {
    let asked = AssumeRole { role_arn: ROLE, session_name: "s", duration_seconds, external_id: Some("x"), policy };
    world.control.access().assume_role(caller, &asked).await
}

#[tokio::test]
async fn sessions_have_their_roles_permissions_until_they_end() {
    let world = World::with_image().await;
    let access: Arc<Access> = world.control.access();
    let ada = ada(&world, json!([])).await;
    role(&world, json!({"Effect": "Allow", "Principal": {"AWS": "123456789012"}, "Action": "sts:AssumeRole", "Condition": {"StringEquals": {"sts:ExternalId": "x"}}}),
        json!([{"Effect": "Allow", "Action": ["lambda:GetMicrovmImage", "lambda:ListMicrovms"], "Resource": "*"}])).await;
    // The trust policy names the account: its own policies decide.
    assert!(matches!(assume(&world, &ada, 900, None).await, Err(AssumeRoleError::Denied(Denied { why: Why::NoIdentityPolicy, .. }))));
    give(&world, json!([{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": ROLE}])).await;
    assert!(matches!(assume(&world, &ada, 7201, None).await, Err(AssumeRoleError::TooLong)));
    let narrow = policy(json!({"Effect": "Allow", "Action": "lambda:ListMicrovms", "Resource": "*"}));
    let narrowed = assume(&world, &ada, 900, Some(&narrow)).await.unwrap();
    let assumed = assume(&world, &ada, 900, None).await.unwrap();
    assert_eq!(assumed.caller.arn, "arn:aws:sts::123456789012:assumed-role/worker/s");
    assert_eq!(assumed.caller.user_id, "AROAWORKER:s");

    let Issued { access_key_id, secret, session_token, .. } = assumed.credentials;
    assert_eq!(access.secret(&access_key_id).await.unwrap(), secret);
    let key = access.access_key(&access_key_id, Some(&session_token)).await.unwrap();
    assert_eq!((&key.secret, &key.caller.arn, key.caller.principal_arn()), (&secret, &assumed.caller.arn, ROLE));
    allowed(&world, &key.caller, "GetMicrovmImage", json!({"imageIdentifier": ARN})).await;
    let session = access.access_key(&narrowed.credentials.access_key_id, Some(&narrowed.credentials.session_token)).await.unwrap().caller;
    allowed(&world, &session, "ListMicrovms", json!({})).await;
    assert!(
        denied(&world, &session, "GetMicrovmImage", json!({"imageIdentifier": ARN}))
            .await
            .ends_with("because no session policy allows the lambda:GetMicrovmImage action")
    );

    for (id, token) in [
        (access_key_id.as_str(), None),
        (&narrowed.credentials.access_key_id, Some(session_token.as_str())),
        ("AKIAADA", Some(&session_token)),
    ] {
        assert!(matches!(access.access_key(id, token).await, Err(CredentialError::Invalid)), "{id}");
    }
    // A session that makes a session gets an hour at most.
    role_trusting_itself(&world).await;
    assert!(matches!(assume(&world, &key.caller, 3601, None).await, Err(AssumeRoleError::TooLongForChain)));
    world.parts.clock.advance(std::time::Duration::from_secs(901));
    assert!(matches!(access.access_key(&access_key_id, Some(&session_token)).await, Err(CredentialError::Expired)));
}

async fn role_trusting_itself(world: &World) {
    let trust = policy(json!([{"Effect": "Allow", "Principal": {"AWS": ROLE}, "Action": "sts:AssumeRole"}]));
    let settings = RoleSettings { trust, description: None, max_session_seconds: 7200 };
    world.parts.store.update_role(&IdentityId("AROAWORKER".into()), &settings).await.unwrap();
    world.control.access().changed();
}

#[tokio::test]
async fn credentials_end_with_their_identity() {
    let world = World::new().await;
    let access = world.control.access();
    let ada = ada(&world, json!([])).await;
    role(&world, json!({"Effect": "Allow", "Principal": {"AWS": ada.arn}, "Action": "sts:AssumeRole"}), json!([])).await;
    // Named itself, the caller needs no policy of its own; a deny still counts.
    let issued = assume(&world, &ada, 900, None).await.unwrap().credentials;
    access.access_key(&issued.access_key_id, Some(&issued.session_token)).await.unwrap();
    give(&world, json!([{"Effect": "Deny", "Action": "sts:*", "Resource": "*"}])).await;
    assert!(matches!(assume(&world, &ada, 900, None).await, Err(AssumeRoleError::Denied(_))));
    let own = access.session_token(&ada, 900).unwrap();
    assert_eq!(access.access_key(&own.access_key_id, Some(&own.session_token)).await.unwrap().caller.arn, ada.arn);

    let store = &world.parts.store;
    store.delete_inline_policy(&IdentityId("AROAWORKER".into()), "p").await.unwrap();
    store.delete_identity(&IdentityId("AROAWORKER".into())).await.unwrap();
    store.set_access_key_active(&IdentityId("AIDAADA".into()), "AKIAADA", false).await.unwrap();
    access.changed();
    assert!(matches!(access.access_key(&issued.access_key_id, Some(&issued.session_token)).await, Err(CredentialError::Invalid)));
    assert!(matches!(access.access_key("AKIAADA", None).await, Err(CredentialError::Invalid)));
}

/// Not a test of the clock: prints what a decision costs, for the reader (`cargo test --release -p emberbox-control decisions_cost -- --nocapture`).
#[tokio::test]
async fn decisions_cost_microseconds() {
    let world = World::with_image().await;
    let mut statements: Vec<Value> = (0..50)
        .map(|n| json!({"Effect": "Allow", "Action": [format!("lambda:Get{n}*"), "s3:*"], "Resource": format!("arn:aws:lambda:*:*:microvm-image:x{n}*"),
            "Condition": {"StringLike": {"aws:PrincipalArn": format!("arn:aws:iam::*:user/u{n}*")}}}))
        .collect();
    statements.push(json!({"Effect": "Allow", "Action": "lambda:GetMicrovmImage", "Resource": ARN}));
    let ada = ada(&world, json!(statements)).await;
    const ROUNDS: u32 = 2000;
    let began = std::time::Instant::now();
    for _ in 0..ROUNDS {
        world.control.access().access_key("AKIAADA", None).await.unwrap();
        allowed(&world, &ada, "GetMicrovmImage", json!({"imageIdentifier": ARN})).await;
    }
    println!("credentials and policy, 51 statements: {:.1} us", began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}
