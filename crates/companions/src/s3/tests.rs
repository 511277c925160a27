//! The store without HTTP; the protocol is proven by `tests/clients.py` with stock clients.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use emberbox_wire::ids::AccountId;
use proptest::prelude::*;

use super::list::{Query, page};
use super::receive::new_data;
use super::record::{Attributes, Checksums, Moment, ObjectRecord};
use super::store::{Objects, Store, StoreError};
use super::{ArtifactReader, ReadObjectError};

fn record(key: &str, size: usize) -> ObjectRecord {
    ObjectRecord {
        key: key.into(),
        data: new_data(),
        size: size as u64,
        etag: "00".into(),
        modified: Moment::now(),
        parts: None,
        checksums: Checksums::default(),
        attributes: Attributes::default(),
    }
}

fn put(store: &Store, bucket: &str, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
    let staged = store.stage();
    fs::write(staged.path(), bytes).unwrap();
    store.put(bucket, record(key, bytes.len()), &staged, |_| true).map(drop)
}

fn owner() -> AccountId {
    AccountId("123456789012".into())
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[tokio::test]
async fn artifacts_are_read_and_refusals_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path().join("s3"), owner()).unwrap());
    store.create_bucket("bucket", &owner()).unwrap();
    put(&store, "bucket", "app.zip", b"12345").unwrap();
    let (reader, to) = (ArtifactReader::new(store), folder.path().join("to"));
    assert_eq!(reader.read_object(&owner(), "bucket", "app.zip", &to, 5).await.unwrap(), 5);
    assert_eq!(fs::read(&to).unwrap(), b"12345");
    assert!(matches!(
        reader.read_object(&owner(), "bucket", "app.zip", &to, 4).await,
        Err(ReadObjectError::TooLarge { size: 5, limit: 4 })
    ));
    assert!(matches!(reader.read_object(&owner(), "bucket", "no", &to, 9).await, Err(ReadObjectError::NoSuchKey)));
    assert!(matches!(reader.read_object(&owner(), "other", "app.zip", &to, 9).await, Err(ReadObjectError::NoSuchBucket)));
    let other = AccountId("210987654321".into());
    assert!(matches!(reader.read_object(&other, "bucket", "app.zip", &to, 9).await, Err(ReadObjectError::OtherAccount)));
    for (bucket, key) in [("..", "x"), ("a/b", "x"), ("bucket", ""), ("BUCKET", "x")] {
        assert!(matches!(reader.read_object(&owner(), bucket, key, &to, 9).await, Err(ReadObjectError::InvalidName)), "{bucket} {key}");
    }
}

#[test]
fn keys_are_never_paths() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("s3");
    let store = Store::open(root.clone(), owner()).unwrap();
    store.create_bucket("bucket", &owner()).unwrap();
    store.create_bucket("other", &owner()).unwrap();
    let keys = ["a", "a/b", "a/../../other/x", "../../../escaped", "/etc/passwd", ".", "a/"];
    for key in keys {
        put(&store, "bucket", key, key.as_bytes()).unwrap();
    }
    assert_eq!(files(folder.path()), 1, "nothing beside the root");
    assert_eq!(files(&root.join("buckets/bucket/objects")), keys.len());
    assert_eq!(files(&root.join("buckets/other/objects")), 0);
    assert!(matches!(put(&store, "../x", "k", b""), Err(StoreError::NoSuchBucket)));
    assert!(matches!(store.create_bucket("../x", &owner()), Err(StoreError::InvalidBucketName)));
}

#[test]
fn the_store_survives_a_restart_and_sweeps_what_nothing_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let store = Store::open(root.clone(), owner()).unwrap();
    store.create_bucket("bucket", &owner()).unwrap();
    put(&store, "bucket", "kept", b"old").unwrap();
    put(&store, "bucket", "kept", b"new").unwrap();
    put(&store, "bucket", "gone", b"x").unwrap();
    store.delete("bucket", "gone").unwrap();
    store.delete("bucket", "gone").unwrap();
    assert_eq!(files(&root.join("data")), 1, "replaced and deleted bytes are gone");
    // A crash between the bytes and the record, and one while a body arrived.
    fs::write(root.join("data").join(new_data().to_string()), b"orphan").unwrap();
    fs::write(root.join("staging/half"), b"half").unwrap();
    fs::create_dir_all(root.join("buckets/half-made/objects")).unwrap();
    drop(store);

    let store = Store::open(root.clone(), owner()).unwrap();
    assert_eq!((files(&root.join("data")), files(&root.join("staging")), files(&root.join("buckets"))), (1, 0, 1));
    let (record, bytes) = store.open_object("bucket", "kept").unwrap();
    assert_eq!((record.size, std::io::read_to_string(bytes).unwrap().as_str()), (3, "new"));
    assert!(matches!(store.delete_bucket("bucket"), Err(StoreError::BucketNotEmpty)));
    store.delete("bucket", "kept").unwrap();
    store.delete_bucket("bucket").unwrap();
    assert!(matches!(store.bucket_exists("bucket"), Err(StoreError::NoSuchBucket)));
}

#[test]
fn buckets_have_owners() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_owned(), owner()).unwrap();
    let other = AccountId("210987654321".into());
    store.create_bucket("mine", &other).unwrap();
    assert!(matches!(store.create_bucket("mine", &other), Err(StoreError::BucketExists)));
    assert!(matches!(store.create_bucket("mine", &owner()), Err(StoreError::BucketNameTaken)));
    // A record of the time before accounts.
    fs::create_dir_all(folder.path().join("buckets/old/objects")).unwrap();
    fs::write(folder.path().join("buckets/old/bucket.json"), r#"{"created": 1}"#).unwrap();
    drop(store);
    let store = Store::open(folder.path().to_owned(), owner()).unwrap();
    assert_eq!((store.owner("mine"), store.owner("old"), store.owner("none")), (Some(other), Some(owner()), None));
}

#[test]
fn a_refused_condition_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_owned(), owner()).unwrap();
    store.create_bucket("bucket", &owner()).unwrap();
    put(&store, "bucket", "k", b"one").unwrap();
    let staged = store.stage();
    fs::write(staged.path(), b"two").unwrap();
    assert!(matches!(store.put("bucket", record("k", 3), &staged, |there| there.is_none()), Err(StoreError::Precondition)));
    drop(staged);
    assert_eq!(std::io::read_to_string(store.open_object("bucket", "k").unwrap().1).unwrap(), "one");
    assert_eq!((files(&folder.path().join("data")), files(&folder.path().join("staging"))), (1, 0));
}

/// All pages of a listing, keys and prefixes in the order they came.
fn walk(objects: &Objects, prefix: &str, delimiter: &str, limit: usize) -> Vec<String> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = page(objects, &Query { prefix, delimiter, after: &after, limit });
        assert!(page.objects.len() + page.prefixes.len() <= limit);
        let mut found: Vec<String> = page.objects.iter().map(|record| record.key.clone()).chain(page.prefixes).collect();
        found.sort();
        all.extend(found);
        match page.next {
            Some(next) => after = next,
            None => return all,
        }
    }
}

proptest! {
    /// Pages of any size together are the listing a plain reading of the rules gives.
    #[test]
    fn pages_add_up(keys in prop::collection::btree_set("[ab/]{1,5}", 0..20), prefix in "[ab/]{0,2}", delimiter in "/?", limit in 1usize..5) {
        let objects: Objects = keys.iter().map(|key| (key.clone(), Arc::new(record(key, 0)))).collect();
        let expected: BTreeSet<String> = keys
            .iter()
            .filter(|key| key.starts_with(&prefix))
            .map(|key| match key[prefix.len()..].find('/') {
                Some(at) if delimiter == "/" => key[..prefix.len() + at + 1].to_owned(),
                _ => key.clone(),
            })
            .collect();
        prop_assert_eq!(walk(&objects, &prefix, &delimiter, limit), expected.into_iter().collect::<Vec<_>>());
    }
}
