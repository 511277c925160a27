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
    assert_eq!(
        store.create_image(&NewImage { image: &image, version: &version, build: &build, tags: &tags }, 9, None, &json!({})).await.unwrap(),
        Commit::Done
    );
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
    assert_eq!(
        store.create_image(&NewImage { image: &image, version: &version, build: &build, tags: &none }, 9, None, &json!({})).await.unwrap(),
        Commit::Done
    );
    let (other, other_version, other_build) = records("one");
    assert_eq!(
        store
            .create_image(&NewImage { image: &other, version: &other_version, build: &other_build, tags: &none }, 9, None, &json!({}))
            .await
            .unwrap(),
        Commit::Raced
    );
    assert_eq!(store.begin_image_delete(image.id, ImageState::Created, UnixMillis(1)).await.unwrap(), Commit::Raced);
    assert_eq!(store.begin_image_delete(image.id, ImageState::Creating, UnixMillis(1)).await.unwrap(), Commit::Done);
    assert_eq!(store.images_in(ImageState::Deleting).await.unwrap().len(), 1);
    store.end_image_delete(&image, true, UnixMillis(2)).await.unwrap();
    assert_eq!(store.image_by_arn(&image.arn).await.unwrap().unwrap().state, ImageState::Deleted);
    assert_eq!(
        store
            .create_image(&NewImage { image: &other, version: &other_version, build: &other_build, tags: &none }, 9, None, &json!({}))
            .await
            .unwrap(),
        Commit::Done
    );
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
    assert_eq!(
        store
            .create_image(&NewImage { image: &image, version: &version, build: &build, tags: &none }, 9, Some(&token), &answer)
            .await
            .unwrap(),
        Commit::Done
    );
    let (other, other_version, other_build) = records("two");
    let again = store
        .create_image(&NewImage { image: &other, version: &other_version, build: &other_build, tags: &none }, 9, Some(&token), &json!({}))
        .await
        .unwrap();
    assert_eq!(again, Commit::Replayed(answer));
    let foreign = ClientToken { digest: "e".into(), ..token.clone() };
    assert_eq!(store.replay(&foreign).await.unwrap(), Some(Commit::TokenReused));
    let elsewhere = ClientToken { operation: "RunMicrovm", ..token.clone() };
    assert_eq!(store.replay(&elsewhere).await.unwrap(), None);
    store.forget_client_tokens(UnixMillis(i64::MAX), 9).await.unwrap();
    assert_eq!(store.replay(&token).await.unwrap(), None);
}

#[tokio::test]
async fn an_account_keeps_its_latest_tokens() {
    let store = Store::in_memory().await.unwrap();
    let token = |account: &str, n: i64| ClientToken {
        account: AccountId(account.into()),
        operation: "RunMicrovm",
        token: n.to_string(),
        digest: "d".into(),
    };
    for n in 0..10 {
        for account in ["a", "b"] {
            store.remember_answer(Some(&token(account, n)), &json!(n), UnixMillis(n)).await.unwrap();
        }
    }
    store.remember_answer(Some(&token("b", 99)), &json!(99), UnixMillis(99)).await.unwrap();
    store.forget_client_tokens(UnixMillis(1), 10).await.unwrap();
    assert_eq!(store.replay(&token("a", 0)).await.unwrap(), None, "too old");
    assert!(store.replay(&token("a", 1)).await.unwrap().is_some() && store.replay(&token("b", 1)).await.unwrap().is_some());
    store.forget_client_tokens(UnixMillis(1), 3).await.unwrap();
    for (account, n, kept) in [("a", 6, false), ("a", 7, true), ("a", 9, true), ("b", 7, false), ("b", 8, true), ("b", 99, true)] {
        assert_eq!(store.replay(&token(account, n)).await.unwrap().is_some(), kept, "{account} {n}");
    }
}

#[tokio::test]
async fn quotas_count_what_is_not_deleted() {
    let store = Store::in_memory().await.unwrap();
    let none = BTreeMap::new();
    let (image, version, build) = records("one");
    let new = NewImage { image: &image, version: &version, build: &build, tags: &none };
    assert_eq!(store.create_image(&new, 0, None, &json!({})).await.unwrap(), Commit::OverQuota(Quota::Images));
    assert_eq!(store.create_image(&new, 1, None, &json!({})).await.unwrap(), Commit::Done);
    let (other, other_version, other_build) = records("two");
    let second = NewImage { image: &other, version: &other_version, build: &other_build, tags: &none };
    assert_eq!(store.create_image(&second, 1, None, &json!({})).await.unwrap(), Commit::OverQuota(Quota::Images));
    store.write_build(&outcome(&version, &build, true)).await.unwrap();
    let (next, next_build) = version_of(image.id, ImageVersion::FIRST.next());
    let change = VersionChange { version: &next, build: &next_build, from: ImageState::Created, to: ImageState::Updating };
    assert_eq!(store.add_version(&change, 1, None, &json!({})).await.unwrap(), Commit::OverQuota(Quota::ImageVersions));
    store.begin_image_delete(image.id, ImageState::Created, UnixMillis(1)).await.unwrap();
    store.end_image_delete(&image, true, UnixMillis(2)).await.unwrap();
    assert_eq!(store.create_image(&second, 1, None, &json!({})).await.unwrap(), Commit::Done);
}

#[tokio::test]
async fn a_build_begins_when_there_is_room_for_it() {
    let store = Store::in_memory().await.unwrap();
    let none = BTreeMap::new();
    let mut builds = Vec::new();
    for name in ["one", "two"] {
        let (image, version, build) = records(name);
        store.create_image(&NewImage { image: &image, version: &version, build: &build, tags: &none }, 9, None, &json!({})).await.unwrap();
        builds.push((version, build));
    }
    let begun = |(version, build): &(VersionRecord, BuildRecord)| VersionOutcome {
        build_state: BuildState::InProgress,
        ..outcome(version, build, true)
    };
    assert!(!store.begin_build(&begun(&builds[0]), 4096, 4095).await.unwrap());
    assert!(store.begin_build(&begun(&builds[0]), 4096, 4096).await.unwrap());
    assert!(!store.begin_build(&begun(&builds[1]), 1, 4096).await.unwrap());
    store.write_build(&outcome(&builds[0].0, &builds[0].1, true)).await.unwrap();
    assert!(store.begin_build(&begun(&builds[1]), 4096, 4096).await.unwrap(), "the first one has ended");
}

#[tokio::test]
async fn versions_are_added_to_a_settled_image_and_deleted_but_for_the_last() {
    let store = Store::in_memory().await.unwrap();
    let (image, version, build) = records("one");
    store
        .create_image(&NewImage { image: &image, version: &version, build: &build, tags: &BTreeMap::new() }, 9, None, &json!({}))
        .await
        .unwrap();
    let (second, second_build) = version_of(image.id, ImageVersion::FIRST.next());
    let change = VersionChange { version: &second, build: &second_build, from: ImageState::Created, to: ImageState::Updating };
    assert_eq!(store.add_version(&change, 9, None, &json!({})).await.unwrap(), Commit::Raced);
    store.write_build(&outcome(&version, &build, true)).await.unwrap();
    assert_eq!(store.add_version(&change, 9, None, &json!({})).await.unwrap(), Commit::Done);
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
