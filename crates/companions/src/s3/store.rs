//! Buckets and objects on disk, and an index of them in memory.
//!
//! ```text
//! <root>/buckets/<bucket>/bucket.json                  BucketRecord
//! <root>/buckets/<bucket>/objects/<sha256(key)>.json   ObjectRecord, names its bytes
//! <root>/data/<uuid>                                   bytes, written once
//! <root>/uploads/<uuid>/{upload,part-<n>}.json         UploadRecord, PartRecord; the bytes of parts are in data/, too
//! <root>/staging/                                      emptied at start
//! ```
//! An object exists from the moment its record is renamed into place; bytes that no record names are swept at start. Writers take turns
//! (`commit`), readers never wait for a disk. Everything here blocks: callers are on a blocking thread.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use emberbox_wire::ids::AccountId;
use s3s::path::check_bucket_name;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::record::{BucketRecord, Moment, ObjectRecord, PartRecord};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the bucket does not exist")]
    NoSuchBucket,
    #[error("the bucket name is not valid")]
    InvalidBucketName,
    #[error("the bucket exists already")]
    BucketExists,
    #[error("another account has a bucket of this name")]
    BucketNameTaken,
    #[error("the bucket is not empty")]
    BucketNotEmpty,
    #[error("the key does not exist")]
    NoSuchKey,
    #[error("the upload does not exist")]
    NoSuchUpload,
    #[error("a precondition does not hold")]
    Precondition,
    #[error("the store's files could not be read or written")]
    Io(#[from] io::Error),
}

/// Objects by key, in S3's order (by bytes).
pub(super) type Objects = BTreeMap<String, Arc<ObjectRecord>>;

pub(super) struct Bucket {
    pub(super) record: BucketRecord,
    pub(super) objects: Objects,
}

pub struct Store {
    root: PathBuf,
    /// Owns the buckets whose records name no owner.
    legacy_owner: AccountId,
    index: RwLock<BTreeMap<String, Bucket>>,
    commit: Mutex<()>,
}

/// A file that is gone when it is dropped before it was taken over.
pub(super) struct Staged(PathBuf);

impl Staged {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Store {
    pub fn open(root: PathBuf, legacy_owner: AccountId) -> Result<Self, StoreError> {
        match fs::remove_dir_all(root.join("staging")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        for folder in ["buckets", "data", "uploads", "staging"] {
            fs::create_dir_all(root.join(folder))?;
        }
        let store = Self { index: RwLock::new(load(&root)?), root, legacy_owner, commit: Mutex::new(()) };
        store.sweep()?;
        Ok(store)
    }

    pub(super) fn index(&self) -> RwLockReadGuard<'_, BTreeMap<String, Bucket>> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Bucket>> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn commit(&self) -> MutexGuard<'_, ()> {
        self.commit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose a bucket is; `None` when there is none of this name.
    pub fn owner(&self, bucket: &str) -> Option<AccountId> {
        self.index().get(bucket).map(|bucket| self.owner_of(bucket).clone())
    }

    pub(super) fn owner_of<'b>(&'b self, bucket: &'b Bucket) -> &'b AccountId {
        bucket.record.owner.as_ref().unwrap_or(&self.legacy_owner)
    }

    pub fn create_bucket(&self, name: &str, owner: &AccountId) -> Result<(), StoreError> {
        let _turn = self.commit();
        if !check_bucket_name(name) {
            return Err(StoreError::InvalidBucketName);
        }
        match self.owner(name) {
            Some(other) if other != *owner => return Err(StoreError::BucketNameTaken),
            Some(_) => return Err(StoreError::BucketExists),
            None => {}
        }
        let record = BucketRecord { created: Moment::now(), owner: Some(owner.clone()) };
        fs::create_dir_all(self.bucket(name).join("objects"))?;
        self.write_record(&self.bucket(name).join("bucket.json"), &record)?;
        self.index_mut().insert(name.into(), Bucket { record, objects: Objects::new() });
        Ok(())
    }

    pub fn delete_bucket(&self, name: &str) -> Result<(), StoreError> {
        let _turn = self.commit();
        match self.index().get(name) {
            None => return Err(StoreError::NoSuchBucket),
            Some(bucket) if !bucket.objects.is_empty() => return Err(StoreError::BucketNotEmpty),
            Some(_) => {}
        }
        // Without its record the folder is no bucket, should we stop halfway.
        fs::remove_file(self.bucket(name).join("bucket.json"))?;
        self.index_mut().remove(name);
        Ok(fs::remove_dir_all(self.bucket(name))?)
    }

    /// Cheap: a look into the index.
    pub fn object(&self, bucket: &str, key: &str) -> Result<Arc<ObjectRecord>, StoreError> {
        self.index().get(bucket).ok_or(StoreError::NoSuchBucket)?.objects.get(key).cloned().ok_or(StoreError::NoSuchKey)
    }

    pub(super) fn bucket_exists(&self, bucket: &str) -> Result<(), StoreError> {
        self.index().contains_key(bucket).then_some(()).ok_or(StoreError::NoSuchBucket)
    }

    /// An object and its bytes, opened: what is read stays what it was, whatever happens to the key meanwhile.
    pub fn open_object(&self, bucket: &str, key: &str) -> Result<(Arc<ObjectRecord>, fs::File), StoreError> {
        const ATTEMPTS: usize = 5;
        for _ in 0..ATTEMPTS {
            let record = self.object(bucket, key)?;
            match fs::File::open(self.data(record.data)) {
                // Replaced or deleted between the look and the open.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                opened => return Ok((record, opened?)),
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "an object's bytes are missing").into())
    }

    /// The staged bytes become the object, if `allowed` says so of what is there now.
    pub(super) fn put(
        &self,
        bucket: &str,
        record: ObjectRecord,
        staged: &Staged,
        allowed: impl FnOnce(Option<&ObjectRecord>) -> bool,
    ) -> Result<Arc<ObjectRecord>, StoreError> {
        let _turn = self.commit();
        let previous = match self.object(bucket, &record.key) {
            Ok(previous) => Some(previous),
            Err(StoreError::NoSuchKey) => None,
            Err(error) => return Err(error),
        };
        if !allowed(previous.as_deref()) {
            return Err(StoreError::Precondition);
        }
        fs::rename(staged.path(), self.data(record.data))?;
        self.write_record(&self.object_record(bucket, &record.key), &record)?;
        let record = Arc::new(record);
        if let Some(bucket) = self.index_mut().get_mut(bucket) {
            bucket.objects.insert(record.key.clone(), record.clone());
        }
        if let Some(previous) = previous {
            self.discard(previous.data);
        }
        Ok(record)
    }

    /// No error for a key that is not there.
    pub fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let _turn = self.commit();
        match self.object(bucket, key) {
            Err(StoreError::NoSuchKey) => Ok(()),
            Err(error) => Err(error),
            Ok(record) => {
                fs::remove_file(self.object_record(bucket, key))?;
                if let Some(bucket) = self.index_mut().get_mut(bucket) {
                    bucket.objects.remove(key);
                }
                self.discard(record.data);
                Ok(())
            }
        }
    }

    pub(super) fn stage(&self) -> Staged {
        Staged(self.root.join("staging").join(Uuid::new_v4().to_string()))
    }

    pub(super) fn data(&self, id: Uuid) -> PathBuf {
        self.root.join("data").join(id.to_string())
    }

    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// Bytes that nothing names any more. What cannot be removed now is swept at the next start.
    pub(super) fn discard(&self, data: Uuid) {
        if let Err(error) = fs::remove_file(self.data(data)) {
            tracing::debug!(%error, %data, "bytes could not be removed");
        }
    }

    pub(super) fn write_record(&self, path: &Path, record: &impl Serialize) -> Result<(), StoreError> {
        let staged = self.stage();
        fs::write(staged.path(), serde_json::to_vec(record).map_err(io::Error::from)?)?;
        fs::File::open(staged.path())?.sync_all()?;
        fs::rename(staged.path(), path)?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }

    fn bucket(&self, name: &str) -> PathBuf {
        self.root.join("buckets").join(name)
    }

    fn object_record(&self, bucket: &str, key: &str) -> PathBuf {
        self.bucket(bucket).join("objects").join(format!("{}.json", hex::encode(Sha256::digest(key))))
    }

    fn sweep(&self) -> Result<(), StoreError> {
        let mut named: HashSet<Uuid> = self.index().values().flat_map(|bucket| bucket.objects.values().map(|record| record.data)).collect();
        for upload in fs::read_dir(self.uploads())? {
            named.extend(read_records::<PartRecord>(&upload?.path(), "part-")?.into_iter().map(|part| part.data));
        }
        for entry in fs::read_dir(self.root.join("data"))? {
            let entry = entry?;
            let name = entry.file_name();
            if !name.to_str().and_then(|name| Uuid::parse_str(name).ok()).is_some_and(|id| named.contains(&id)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

fn load(root: &Path) -> Result<BTreeMap<String, Bucket>, StoreError> {
    let mut buckets = BTreeMap::new();
    for entry in fs::read_dir(root.join("buckets"))? {
        let folder = entry?.path();
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        match read_record::<BucketRecord>(&folder.join("bucket.json"))? {
            Some(record) => {
                let objects = read_records::<ObjectRecord>(&folder.join("objects"), "")?;
                let objects = objects.into_iter().map(|record| (record.key.clone(), Arc::new(record))).collect();
                buckets.insert(name.to_owned(), Bucket { record, objects });
            }
            // Half made or half deleted.
            None => fs::remove_dir_all(&folder)?,
        }
    }
    Ok(buckets)
}

/// `None` when there is no such file.
pub(super) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(io::Error::from)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All records of a folder whose names begin with `prefix`.
pub(super) fn read_records<T: DeserializeOwned>(folder: &Path, prefix: &str) -> Result<Vec<T>, StoreError> {
    let mut records = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(".json")) {
            records.extend(read_record(&entry.path())?);
        }
    }
    Ok(records)
}
