//! Conflicting requests at once: one wins, the others are told, nothing is done twice.

use emberbox_wire::error::ErrorCode;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{ARN, World, definition, eventually, with};

fn winners(answers: &[Result<Value, emberbox_wire::error::ApiError>], refusal: ErrorCode) -> usize {
    for error in answers.iter().flat_map(|answer| answer.as_ref().err()) {
        assert_eq!(error.code, refusal, "{error}");
    }
    answers.iter().filter(|answer| answer.is_ok()).count()
}

#[tokio::test]
async fn one_of_many_images_gets_a_name() {
    let world = World::new().await;
    let creates = (0..20).map(|n| {
        let request = with(definition(), json!({"name": "web", "description": n.to_string()}));
        world.call("CreateMicrovmImage", request)
    });
    assert_eq!(winners(&join_all(creates).await, ErrorCode::Validation), 1);
    world.image_state("CREATED").await;
    assert_eq!(world.parts.builder.requests().len(), 1);
}

#[tokio::test]
async fn one_of_many_updates_begins_a_version() {
    let world = World::with_image().await;
    world.parts.builder.hold(true);
    let updates = (0..20).map(|_| world.call("UpdateMicrovmImage", with(definition(), json!({"imageIdentifier": ARN}))));
    assert_eq!(winners(&join_all(updates).await, ErrorCode::Conflict), 1);
    world.parts.builder.hold(false);
    world.image_state("UPDATED").await;
    let versions = world.ok("ListMicrovmImageVersions", json!({"imageIdentifier": ARN})).await;
    assert_eq!(versions["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_delete_and_launches_never_both_succeed() {
    for _ in 0..10 {
        let world = World::with_image().await;
        let launches = (0..5).map(|_| world.call("RunMicrovm", json!({"imageIdentifier": ARN})));
        let delete = world.call("DeleteMicrovmImage", json!({"imageIdentifier": ARN}));
        let (launched, deleted) = tokio::join!(join_all(launches), delete);
        let launched = winners(&launched, ErrorCode::ResourceNotFound);
        assert!(deleted.is_ok() != (launched > 0), "{launched} launched, deleted: {deleted:?}");
        if let Err(error) = deleted {
            assert_eq!(error.message, "Cannot delete microvm image with running microvms.");
        }
    }
}

#[tokio::test]
async fn deletes_at_once_all_succeed() {
    let world = World::with_image().await;
    let deletes = (0..10).map(|_| world.call("DeleteMicrovmImage", json!({"imageIdentifier": ARN})));
    assert_eq!(winners(&join_all(deletes).await, ErrorCode::Validation), 10);
    eventually("gone", async || world.call("GetMicrovmImage", json!({"imageIdentifier": ARN})).await.is_err()).await;
}

#[tokio::test]
async fn an_image_keeps_one_version_whatever_is_deleted_at_once() {
    let world = World::with_image().await;
    world.ok("UpdateMicrovmImage", with(definition(), json!({"imageIdentifier": ARN}))).await;
    world.image_state("UPDATED").await;
    let delete = |version: &'static str| world.call("DeleteMicrovmImageVersion", json!({"imageIdentifier": ARN, "imageVersion": version}));
    let (first, second) = tokio::join!(delete("1.0"), delete("2.0"));
    assert_eq!(winners(&[first, second], ErrorCode::Conflict), 1);
}

#[tokio::test]
async fn duplicates_with_a_token_are_one_request() {
    let world = World::with_image().await;
    let requests = [
        ("CreateMicrovmImage", with(definition(), json!({"name": "again", "clientToken": "t"}))),
        ("UpdateMicrovmImage", with(definition(), json!({"imageIdentifier": ARN, "clientToken": "t"}))),
        ("RunMicrovm", json!({"imageIdentifier": ARN, "clientToken": "t"})),
        (
            "CreateNetworkConnector",
            json!({
                "Name": "net", "ClientToken": "t", "OperatorRole": "arn:aws:iam::123456789012:role/operator",
                "Configuration": {"VpcEgressConfiguration": {
                    "SubnetIds": ["subnet-1"], "NetworkProtocol": "IPv4", "AssociatedComputeResourceTypes": ["MicroVm"],
                }},
            }),
        ),
    ];
    for (operation, request) in requests {
        let answers = join_all((0..20).map(|_| world.call(operation, request.clone()))).await;
        let first = answers[0].as_ref().unwrap();
        assert!(answers.iter().all(|answer| answer.as_ref().unwrap() == first), "{operation}");
    }
    assert_eq!(world.ok("ListMicrovms", json!({})).await["items"].as_array().unwrap().len(), 1);
    assert_eq!(world.ok("ListNetworkConnectors", json!({})).await["NetworkConnectors"].as_array().unwrap().len(), 1);
    let versions = world.ok("ListMicrovmImageVersions", json!({"imageIdentifier": ARN})).await;
    assert_eq!(versions["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn tags_at_once_stay_within_the_limit() {
    let world = World::with_image().await;
    let tags = |n: usize| {
        let pairs = (0..10).map(|k| (format!("k{n}-{k}"), json!("v")));
        json!({"Resource": ARN, "Tags": Value::Object(pairs.collect())})
    };
    let answers = join_all((0..8).map(|n| world.call("TagResource", tags(n)))).await;
    assert_eq!(winners(&answers, ErrorCode::Validation), 5);
    assert_eq!(world.ok("ListTags", json!({"Resource": ARN})).await["Tags"].as_object().unwrap().len(), 50);
    for key in ["aws:x", "AWS:x"] {
        assert_eq!(world.refused("TagResource", json!({"Resource": ARN, "Tags": {key: "v"}})).await.0, ErrorCode::Validation);
        assert_eq!(world.refused("UntagResource", json!({"Resource": ARN, "TagKeys": [key]})).await.0, ErrorCode::Validation);
    }
}
