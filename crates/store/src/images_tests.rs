#![allow(clippy::unwrap_used)]
use serde_json::json;
use uuid::Uuid;

use super::*;

fn arn(name: &str) -> ImageArn {
    format!("arn:aws:lambda:us-east-1:123456789012:microvm-image:{name}").parse().unwrap()
}

pub(crate) fn records(name: &str) -> (ImageRecord, VersionRecord, BuildRecord) {
    let id = ImageId(Uuid::new_v4());
    let now = UnixMillis(1_700_000_000_123);
    let image = ImageRecord { id, arn: arn(name), state: ImageState::Creating, created_at: now, updated_at: now };
    let (version, build) = version_of(id, ImageVersion::FIRST);
    (image, version, build)
}

fn version_of(image: ImageId, number: ImageVersion) -> (VersionRecord, BuildRecord) {
    let now = UnixMillis(1_700_000_000_123);
    let definition = serde_json::from_value(json!({
        "baseImageArn": "b", "baseImageVersion": "1", "buildRoleArn": "r", "description": "d", "codeArtifact": {"uri": "s3://b/k"},
        "logging": {"cloudWatch": {"logGroup": "g"}}, "egressNetworkConnectors": [], "cpuConfigurations": [{"architecture": "X86_64"}],
        "resources": [{"minimumMemoryInMiB": 512}], "additionalOsCapabilities": ["ALL"],
        "hooks": {"port": 9000, "microvmHooks": {"run": "ENABLED", "runTimeoutInSeconds": 3}, "microvmImageHooks": {"ready": "ENABLED"}},
        "environmentVariables": {"A": "1"},
    }))
    .unwrap();
    let version = VersionRecord {
        image,
        version: number,
        state: VersionState::Pending,
        status: VersionStatus::Inactive,
        state_reason: None,
        definition,
        image_key: format!("{image}-{}", number.major),
        built: None,
        created_at: now,
        updated_at: now,
    };
    let build = BuildRecord {
        id: BuildId::random(),
        image,
        version: number,
        state: BuildState::Pending,
        state_reason: None,
        sizes: SnapshotBytes::default(),
        timings: json!({}),
        created_at: now,
        updated_at: now,
    };
    (version, build)
}

pub(crate) fn outcome(version: &VersionRecord, build: &BuildRecord, success: bool) -> VersionOutcome {
    VersionOutcome {
        image: version.image,
        version: version.version,
        build: build.id.clone(),
        image_state: if success { ImageState::Created } else { ImageState::CreateFailed },
        version_state: if success { VersionState::Successful } else { VersionState::Failed },
        status: if success { VersionStatus::Active } else { VersionStatus::Inactive },
        build_state: if success { BuildState::Successful } else { BuildState::Failed },
        reason: (!success).then(|| "why".to_owned()),
        sizes: SnapshotBytes { code_install: Some(1), memory: Some(u64::from(u32::MAX) + 1), disk: None },
        timings: json!({"a": 1.5}),
        built: success.then(|| json!({"x": [1]})),
        now: UnixMillis(1_700_000_001_000),
    }
}

#[tokio::test]
async fn image_version_and_build_round_trip() {
    let store = Store::in_memory().await.unwrap();
    let (image, version, build) = records("one");
    let tags = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
    assert_eq!(store.create_image(&image, &version, &build, &tags, None, &json!({})).await.unwrap(), Commit::Done);
    assert_eq!(store.image_by_arn(&image.arn).await.unwrap().unwrap(), image);
    assert_eq!(store.image(image.id).await.unwrap().unwrap(), image);
    assert_eq!(store.version(image.id, ImageVersion::FIRST).await.unwrap().unwrap(), version);
    assert_eq!(store.build(image.id, ImageVersion::FIRST, &build.id).await.unwrap().unwrap(), build);
    assert_eq!(store.tags(&image.arn.to_string()).await.unwrap(), tags);
    assert_eq!(store.unfinished_builds().await.unwrap(), std::slice::from_ref(&build));

    let outcome = outcome(&version, &build, true);
    store.write_build(&outcome).await.unwrap();
    let written = store.latest_active_version(image.id).await.unwrap().unwrap();
    assert_eq!(written.built, outcome.built);
    let written = store.build(image.id, ImageVersion::FIRST, &build.id).await.unwrap().unwrap();
    assert_eq!((written.sizes, written.timings, written.state), (outcome.sizes, outcome.timings, BuildState::Successful));
    assert_eq!(store.unfinished_builds().await.unwrap(), []);
}

#[tokio::test]
async fn a_name_is_taken_until_its_image_is_deleted() {
    let store = Store::in_memory().await.unwrap();
    let (image, version, build) = records("one");
    let none = BTreeMap::new();
    assert_eq!(store.create_image(&image, &version, &build, &none, None, &json!({})).await.unwrap(), Commit::Done);
    let (other, other_version, other_build) = records("one");
    assert_eq!(store.create_image(&other, &other_version, &other_build, &none, None, &json!({})).await.unwrap(), Commit::Raced);
    assert_eq!(store.begin_image_delete(image.id, ImageState::Created, UnixMillis(1)).await.unwrap(), Commit::Raced);
    assert_eq!(store.begin_image_delete(image.id, ImageState::Creating, UnixMillis(1)).await.unwrap(), Commit::Done);
    assert_eq!(store.images_in(ImageState::Deleting).await.unwrap().len(), 1);
    store.end_image_delete(&image, true, UnixMillis(2)).await.unwrap();
    assert_eq!(store.image_by_arn(&image.arn).await.unwrap().unwrap().state, ImageState::Deleted);
    assert_eq!(store.create_image(&other, &other_version, &other_build, &none, None, &json!({})).await.unwrap(), Commit::Done);
    assert_eq!(store.image_by_arn(&image.arn).await.unwrap().unwrap().id, other.id);
    assert_eq!(store.images(&image.arn.account, None, None, 10).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_client_token_answers_what_it_answered() {
    let store = Store::in_memory().await.unwrap();
    let (image, version, build) = records("one");
    let none = BTreeMap::new();
    let token = ClientToken { account: image.arn.account.clone(), operation: "CreateMicrovmImage", token: "t".into(), digest: "d".into() };
    let answer = json!({"a": 1});
    assert_eq!(store.create_image(&image, &version, &build, &none, Some(&token), &answer).await.unwrap(), Commit::Done);
    let (other, other_version, other_build) = records("two");
    let again = store.create_image(&other, &other_version, &other_build, &none, Some(&token), &json!({})).await.unwrap();
    assert_eq!(again, Commit::Replayed(answer));
    let foreign = ClientToken { digest: "e".into(), ..token.clone() };
    assert_eq!(store.replay(&foreign).await.unwrap(), Some(Commit::TokenReused));
    let elsewhere = ClientToken { operation: "RunMicrovm", ..token.clone() };
    assert_eq!(store.replay(&elsewhere).await.unwrap(), None);
    store.forget_client_tokens(UnixMillis(i64::MAX)).await.unwrap();
    assert_eq!(store.replay(&token).await.unwrap(), None);
}

#[tokio::test]
async fn versions_are_added_to_a_settled_image_and_deleted_but_for_the_last() {
    let store = Store::in_memory().await.unwrap();
    let (image, version, build) = records("one");
    store.create_image(&image, &version, &build, &BTreeMap::new(), None, &json!({})).await.unwrap();
    let (second, second_build) = version_of(image.id, ImageVersion::FIRST.next());
    let change = VersionChange { version: &second, build: &second_build, from: ImageState::Created, to: ImageState::Updating };
    assert_eq!(store.add_version(&change, None, &json!({})).await.unwrap(), Commit::Raced);
    store.write_build(&outcome(&version, &build, true)).await.unwrap();
    assert_eq!(store.add_version(&change, None, &json!({})).await.unwrap(), Commit::Done);
    store.write_build(&outcome(&second, &second_build, false)).await.unwrap();
    assert_eq!(store.latest_active_version(image.id).await.unwrap().unwrap().version, ImageVersion::FIRST);
    assert_eq!(store.latest_failed_version(image.id).await.unwrap(), Some(second.version));
    assert_eq!(store.newest_version(image.id).await.unwrap(), Some(second.version));

    let first_page = store.versions(image.id, None, 1).await.unwrap();
    assert_eq!(first_page.items[0].version, second.version);
    let second_page = store.versions(image.id, first_page.next, 1).await.unwrap();
    assert_eq!((second_page.items[0].version, second_page.next), (ImageVersion::FIRST, None));

    assert_eq!(store.begin_version_delete(&second, VersionState::Failed, UnixMillis(3)).await.unwrap(), Commit::Done);
    assert_eq!(store.versions_in(VersionState::Deleting).await.unwrap().len(), 1);
    store.end_version_delete(&second, VersionState::Deleted, UnixMillis(4)).await.unwrap();
    assert_eq!(store.begin_version_delete(&version, VersionState::Successful, UnixMillis(3)).await.unwrap(), Commit::Raced);
    assert_eq!(store.set_version_status(image.id, version.version, VersionStatus::Inactive, UnixMillis(5)).await.unwrap(), Commit::Done);
    assert_eq!(store.latest_active_version(image.id).await.unwrap(), None);
    assert_eq!(store.newest_version(image.id).await.unwrap(), Some(second.version));
}
