//! What has been read of IAM's records, for as long as they do not change.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};

use emberbox_store::{IdentityId, IdentityRecord};
use emberbox_wire::caller::AccessKey;

use super::policy::Document;

/// Entries of one kind; when there are more, all are read anew. Sessions come and go by the thousand.
const CAPACITY: usize = 16 * 1024;

/// The compiled policies of one identity.
#[derive(Debug)]
pub(super) struct Grants {
    pub(super) documents: Vec<Document>,
    /// Some policy asks for tags of resources, which have to be read for it.
    pub(super) by_resource_tags: bool,
}

/// A moment in the life of the records: what was read before a change must not be kept after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

#[derive(Default)]
pub(super) struct Cache(RwLock<Entries>);

#[derive(Default)]
struct Entries {
    generation: u64,
    keys: HashMap<String, AccessKey>,
    identities: HashMap<IdentityId, Arc<IdentityRecord>>,
    grants: HashMap<IdentityId, Arc<Grants>>,
    /// Of sessions with a policy of their own, by access key.
    session_policies: HashMap<String, Arc<Grants>>,
}

impl Cache {
    pub(super) fn forget(&self) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *entries = Entries { generation: entries.generation + 1, ..Entries::default() };
    }

    /// To be taken before the records are read.
    pub(super) fn generation(&self) -> Generation {
        Generation(self.read(|entries| entries.generation))
    }

    pub(super) fn key(&self, id: &str) -> Option<AccessKey> {
        self.read(|entries| entries.keys.get(id).cloned())
    }

    pub(super) fn keep_key(&self, generation: Generation, key: &AccessKey) {
        self.keep(generation, |entries| insert(&mut entries.keys, key.id.clone(), key.clone()));
    }

    pub(super) fn identity(&self, id: &IdentityId) -> Option<Arc<IdentityRecord>> {
        self.read(|entries| entries.identities.get(id).cloned())
    }

    pub(super) fn keep_identity(&self, generation: Generation, identity: &Arc<IdentityRecord>) {
        self.keep(generation, |entries| insert(&mut entries.identities, identity.id.clone(), identity.clone()));
    }

    pub(super) fn grants(&self, id: &IdentityId) -> Option<Arc<Grants>> {
        self.read(|entries| entries.grants.get(id).cloned())
    }

    pub(super) fn keep_grants(&self, generation: Generation, id: &IdentityId, grants: &Arc<Grants>) {
        self.keep(generation, |entries| insert(&mut entries.grants, id.clone(), grants.clone()));
    }

    pub(super) fn session_policy(&self, key: &str) -> Option<Arc<Grants>> {
        self.read(|entries| entries.session_policies.get(key).cloned())
    }

    pub(super) fn keep_session_policy(&self, generation: Generation, key: &str, grants: &Arc<Grants>) {
        self.keep(generation, |entries| insert(&mut entries.session_policies, key.to_owned(), grants.clone()));
    }

    fn read<T>(&self, look: impl FnOnce(&Entries) -> T) -> T {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn keep(&self, generation: Generation, write: impl FnOnce(&mut Entries)) {
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if entries.generation == generation.0 {
            write(&mut entries);
        }
    }
}

fn insert<K: Eq + Hash, V>(map: &mut HashMap<K, V>, key: K, value: V) {
    if map.len() >= CAPACITY {
        map.clear();
    }
    map.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_a_change_is_not_kept() {
        let cache = Cache::default();
        let grants = Arc::new(Grants { documents: Vec::new(), by_resource_tags: false });
        let id = IdentityId("AIDAX".into());
        let before = cache.generation();
        cache.keep_grants(before, &id, &grants);
        assert!(cache.grants(&id).is_some());
        cache.forget();
        assert!(cache.grants(&id).is_none());
        cache.keep_grants(before, &id, &grants);
        assert!(cache.grants(&id).is_none());
        cache.keep_grants(cache.generation(), &id, &grants);
        assert!(cache.grants(&id).is_some());
    }
}
