use serde_json::json;

use super::{ARN, BASE, World, caller, definition, eventually, with};
use crate::image_builder::{BuildFailure, SnapshotSizes};
use emberbox_wire::error::ErrorCode;

#[tokio::test]
async fn an_image_is_built_read_listed_updated_and_deleted() {
    let world = World::new().await;
    let request = with(
        definition(),
        json!({"name": "web", "baseImageVersion": "1", "environmentVariables": {"A": "1"}, "tags": {"k": "v"}, "resources": [{"minimumMemoryInMiB": 512}]}),
    );
    let created = world.ok("CreateMicrovmImage", request).await;
    assert_eq!(created["state"], "CREATING");
    assert_eq!(created["imageVersion"], "1.0");
    assert_eq!(created["baseImageVersion"], "1.0");
    assert_eq!(created["environmentVariables"], json!({"A": "1"}));
    assert_eq!(created["imageArn"], ARN);
    assert_eq!(created["createdAt"], 1_750_000_000.0);
    world.image_state("CREATED").await;

    let image = world.ok("GetMicrovmImage", json!({"imageIdentifier": ARN})).await;
    assert_eq!((&image["latestActiveImageVersion"], &image["tags"]), (&json!("1.0"), &json!({"k": "v"})));
    let at = json!({"imageIdentifier": ARN, "imageVersion": "1.0"});
    let version = world.ok("GetMicrovmImageVersion", at.clone()).await;
    assert_eq!((&version["state"], &version["status"]), (&json!("SUCCESSFUL"), &json!("ACTIVE")));
    let builds = world.ok("ListMicrovmImageBuilds", with(at.clone(), json!({"chipset": "INTEL"}))).await;
    let build_id = builds["items"][0]["buildId"].clone();
    assert_eq!(world.ok("ListMicrovmImageBuilds", with(at.clone(), json!({"architecture": "ARM_64"}))).await, json!({"items": []}));
    let build = world.ok("GetMicrovmImageBuild", with(at.clone(), json!({"buildId": build_id}))).await;
    assert_eq!(build["buildState"], "SUCCESSFUL");
    assert_eq!(
        build["snapshotBuild"],
        json!({"codeInstallSizeInBytes": 10, "memorySnapshotSizeInBytes": 20, "diskSnapshotSizeInBytes": 30})
    );
    let log = &world.parts.logs.entries()[0];
    assert_eq!((log.group.as_str(), log.line.as_str()), ("/aws/lambda-microvms/web", "[emberbox] fetch"));
    let timings = world.control.build_timings(&ARN.parse().unwrap(), "1.0".parse().unwrap()).await.unwrap().unwrap();
    assert!(timings[0]["timings"]["steps"].as_array().unwrap().iter().any(|step| step["name"] == "container_build"));

    let updated = world.ok("UpdateMicrovmImage", with(definition(), json!({"imageIdentifier": ARN}))).await;
    assert_eq!((&updated["state"], &updated["imageVersion"]), (&json!("UPDATING"), &json!("2.0")));
    assert_eq!(updated.get("environmentVariables"), None, "PUT semantics");
    world.image_state("UPDATED").await;
    let versions = world.ok("ListMicrovmImageVersions", json!({"imageIdentifier": ARN})).await;
    assert_eq!(versions["items"].as_array().unwrap().len(), 2);
    assert_eq!(versions["items"][0]["imageVersion"], "2.0");

    let deleted = world.ok("DeleteMicrovmImageVersion", at.clone()).await;
    assert_eq!(deleted["state"], "DELETING");
    eventually("version gone", async || world.call("GetMicrovmImageVersion", at.clone()).await.is_err()).await;
    assert_eq!(world.ok("DeleteMicrovmImageVersion", at).await["state"], "DELETED");
    let last = json!({"imageIdentifier": ARN, "imageVersion": "2.0"});
    assert_eq!(world.refused("DeleteMicrovmImageVersion", last).await.0, ErrorCode::Conflict);

    assert_eq!(world.ok("DeleteMicrovmImage", json!({"imageIdentifier": ARN})).await["state"], "DELETING");
    eventually("image gone", async || world.call("GetMicrovmImage", json!({"imageIdentifier": ARN})).await.is_err()).await;
    assert_eq!(world.ok("DeleteMicrovmImage", json!({"imageIdentifier": ARN})).await["state"], "DELETED");
    assert_eq!(world.ok("ListMicrovmImages", json!({})).await, json!({"items": []}));
    world.ok("CreateMicrovmImage", with(definition(), json!({"name": "web"}))).await;
    world.image_state("CREATED").await;
}

#[tokio::test]
async fn a_failed_build_says_why_on_build_and_version() {
    let world = World::new().await;
    let sizes = SnapshotSizes { code_install_bytes: Some(7), ..SnapshotSizes::default() };
    let reason = "Ready hook invocation timed out after PT5M".to_owned();
    world.parts.builder.fail(Some(BuildFailure { reason: reason.clone(), sizes }));
    world.ok("CreateMicrovmImage", with(definition(), json!({"name": "web"}))).await;
    world.image_state("CREATE_FAILED").await;
    let image = world.ok("GetMicrovmImage", json!({"imageIdentifier": ARN})).await;
    assert_eq!((&image["latestFailedImageVersion"], image.get("latestActiveImageVersion")), (&json!("1.0"), None));
    let at = json!({"imageIdentifier": ARN, "imageVersion": "1.0"});
    let version = world.ok("GetMicrovmImageVersion", at.clone()).await;
    assert_eq!((&version["state"], &version["stateReason"]), (&json!("FAILED"), &json!(reason)));
    let build = world.ok("ListMicrovmImageBuilds", at.clone()).await["items"][0].clone();
    assert_eq!((&build["buildState"], &build["stateReason"]), (&json!("FAILED"), &json!(reason)));
    let build = world.ok("GetMicrovmImageBuild", with(at.clone(), json!({"buildId": build["buildId"]}))).await;
    assert_eq!(build["snapshotBuild"], json!({"codeInstallSizeInBytes": 7}));
    let refused = world.refused("UpdateMicrovmImageVersion", with(at, json!({"status": "ACTIVE"}))).await;
    assert_eq!(refused.0, ErrorCode::Conflict);

    world.parts.builder.fail(None);
    world.ok("UpdateMicrovmImage", with(definition(), json!({"imageIdentifier": ARN}))).await;
    world.image_state("UPDATED").await;
}

#[tokio::test]
async fn a_building_image_is_left_alone_and_builds_wait_their_turn() {
    let world = World::new().await;
    world.parts.builder.hold(true);
    for name in ["web", "two", "three"] {
        world.ok("CreateMicrovmImage", with(definition(), json!({"name": name}))).await;
    }
    eventually("two builds", async || world.parts.builder.requests().len() == 2).await;
    let at = json!({"imageIdentifier": ARN, "imageVersion": "1.0"});
    assert_eq!(world.refused("UpdateMicrovmImage", with(definition(), json!({"imageIdentifier": ARN}))).await.0, ErrorCode::Conflict);
    let deleted = world.refused("DeleteMicrovmImage", json!({"imageIdentifier": ARN})).await;
    assert_eq!(deleted, (ErrorCode::Validation, "Cannot delete MicroVM image in its current state: CREATING".into()));
    let status = with(at.clone(), json!({"status": "INACTIVE"}));
    let patched = world.refused("UpdateMicrovmImageVersion", status).await;
    assert_eq!(patched, (ErrorCode::Conflict, "MicroVM Image is already in state: CREATING".into()));
    assert_eq!(world.refused("DeleteMicrovmImageVersion", at).await.0, ErrorCode::Conflict);
    world.parts.builder.hold(false);
    eventually("all built", async || {
        let images = world.ok("ListMicrovmImages", json!({})).await;
        images["items"].as_array().unwrap().iter().all(|image| image["state"] == "CREATED")
    })
    .await;
    assert_eq!(world.parts.builder.most_at_once(), 2);
}

#[tokio::test]
async fn listings_go_on_where_they_stopped_whatever_is_made_meanwhile() {
    let world = World::new().await;
    for name in ["a1", "a2", "b3", "a4"] {
        world.ok("CreateMicrovmImage", with(definition(), json!({"name": name}))).await;
    }
    let first = world.ok("ListMicrovmImages", json!({"nameFilter": "a", "maxResults": 2})).await;
    assert_eq!((&first["items"][0]["name"], &first["items"][1]["name"]), (&json!("a4"), &json!("a2")));
    world.ok("CreateMicrovmImage", with(definition(), json!({"name": "a5"}))).await;
    let token = first["nextToken"].clone();
    let second = world.ok("ListMicrovmImages", json!({"nameFilter": "a", "maxResults": 2, "nextToken": token})).await;
    assert_eq!((&second["items"][0]["name"], second.get("nextToken")), (&json!("a1"), None));
    let foreign = world.refused("ListMicrovmImages", json!({"nextToken": token})).await;
    assert_eq!(foreign.0, ErrorCode::Validation);
    assert_eq!(world.refused("ListMicrovms", json!({"nextToken": token})).await.0, ErrorCode::Validation);
}

#[tokio::test]
async fn managed_images_are_listed_under_both_names() {
    let world = World::new().await;
    let listed = world.ok("ListManagedMicrovmImages", json!({})).await;
    assert_eq!(listed["items"][0]["imageArn"], BASE);
    let own = "arn:aws:lambda:us-east-1:aws:microvm-image:debian-13";
    assert_eq!(listed["items"][1]["imageArn"], own);
    let first = world.ok("ListManagedMicrovmImages", json!({"maxResults": 1})).await;
    let second = world.ok("ListManagedMicrovmImages", json!({"maxResults": 1, "nextToken": first["nextToken"]})).await;
    assert_eq!((&second["items"][0]["imageArn"], second.get("nextToken")), (&json!(own), None));
    let versions = world.ok("ListManagedMicrovmImageVersions", json!({"imageIdentifier": own})).await;
    assert_eq!(versions["items"][0]["imageVersion"], "1");
    let request = with(definition(), json!({"name": "own", "baseImageArn": own, "baseImageVersion": "1.0"}));
    assert_eq!(world.ok("CreateMicrovmImage", request).await["baseImageVersion"], "1.0");
}

#[tokio::test]
async fn a_client_token_makes_one_image() {
    let world = World::new().await;
    let request = with(definition(), json!({"name": "web", "clientToken": "t"}));
    let (first, second) =
        tokio::join!(world.call("CreateMicrovmImage", request.clone()), world.call("CreateMicrovmImage", request.clone()));
    assert_eq!(first.unwrap(), second.unwrap());
    let other = with(request, json!({"description": "other"}));
    assert_eq!(world.refused("CreateMicrovmImage", other).await.0, ErrorCode::Conflict);
}

#[tokio::test]
async fn tags_and_foreign_accounts() {
    let world = World::with_image().await;
    world.ok("TagResource", json!({"Resource": ARN, "Tags": {"a": "1", "b": "2"}})).await;
    world.ok("UntagResource", json!({"Resource": ARN, "TagKeys": ["a"]})).await;
    assert_eq!(world.ok("ListTags", json!({"Resource": ARN})).await, json!({"Tags": {"b": "2"}}));
    let connector = "arn:aws:lambda:us-east-1:123456789012:network-connector:x";
    assert_eq!(world.refused("ListTags", json!({"Resource": connector})).await.0, ErrorCode::ResourceNotFound);
    let foreign = world.control.call(&caller("999999999999"), "GetMicrovmImage", json!({"imageIdentifier": ARN})).await;
    assert_eq!(foreign.unwrap_err().code, ErrorCode::ResourceNotFound);
}
