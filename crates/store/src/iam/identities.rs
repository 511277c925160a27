//! Users and roles.

use emberbox_wire::ids::AccountId;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::records::{IdentityId, IdentityKind, IdentityRecord, IdentitySettings, RoleSettings};
use super::{Written, done_or_absent};
use crate::codec::read_time;
use crate::images::page;
use crate::records::Page;
use crate::{Store, StoreError};

fn read(row: &SqliteRow) -> Result<IdentityRecord, StoreError> {
    let settings = match row.try_get::<String, _>("kind")?.as_str() {
        "user" => IdentitySettings::User,
        _ => IdentitySettings::Role(RoleSettings {
            trust: row.try_get("trust")?,
            description: row.try_get("description")?,
            max_session_seconds: row.try_get("max_session_seconds")?,
        }),
    };
    Ok(IdentityRecord {
        id: IdentityId(row.try_get("id")?),
        account: AccountId(row.try_get("account")?),
        name: row.try_get("name")?,
        path: row.try_get("path")?,
        created_at: read_time(row, "created_at")?,
        settings,
    })
}

impl Store {
    pub async fn insert_identity(&self, record: &IdentityRecord) -> Result<Written, StoreError> {
        let role = match &record.settings {
            IdentitySettings::User => None,
            IdentitySettings::Role(role) => Some(role),
        };
        let query = sqlx::query(
            "INSERT INTO identities (id, account, kind, name, path, created_at, trust, description, max_session_seconds)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(&record.id.0)
        .bind(&record.account.0)
        .bind(record.kind().word())
        .bind(&record.name)
        .bind(&record.path)
        .bind(record.created_at.0)
        .bind(role.map(|role| &role.trust))
        .bind(role.and_then(|role| role.description.as_ref()))
        .bind(role.map(|role| role.max_session_seconds));
        let inserted = query.execute(&self.writer).await?.rows_affected() > 0;
        Ok(if inserted { Written::Done } else { Written::Exists })
    }

    /// By name, whose case does not matter.
    pub async fn identity(&self, account: &AccountId, kind: IdentityKind, name: &str) -> Result<Option<IdentityRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM identities WHERE account = ? AND kind = ? AND name = ?");
        query.bind(&account.0).bind(kind.word()).bind(name).fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    pub async fn identity_by_id(&self, id: &IdentityId) -> Result<Option<IdentityRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM identities WHERE id = ?");
        query.bind(&id.0).fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    /// In the order of their making, those below `path_prefix` alone.
    pub async fn identities(
        &self,
        account: &AccountId,
        kind: IdentityKind,
        path_prefix: &str,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<IdentityRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM identities WHERE account = ? AND kind = ? AND seq > ? AND substr(path, 1, length(?)) = ? ORDER BY seq LIMIT ?",
        )
        .bind(&account.0)
        .bind(kind.word())
        .bind(after.unwrap_or_default())
        .bind(path_prefix)
        .bind(path_prefix)
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.reader)
        .await?;
        page(&rows, limit, read)
    }

    pub async fn count_identities(&self, account: &AccountId, kind: IdentityKind) -> Result<u32, StoreError> {
        let query = sqlx::query("SELECT count(*) AS found FROM identities WHERE account = ? AND kind = ?");
        Ok(query.bind(&account.0).bind(kind.word()).fetch_one(&self.reader).await?.try_get("found")?)
    }

    /// What an update may change of a role: the trust policy, the description, the longest session.
    pub async fn update_role(&self, id: &IdentityId, role: &RoleSettings) -> Result<Written, StoreError> {
        let query = sqlx::query("UPDATE identities SET trust = ?, description = ?, max_session_seconds = ? WHERE id = ? AND kind = 'role'")
            .bind(&role.trust)
            .bind(&role.description)
            .bind(role.max_session_seconds)
            .bind(&id.0);
        Ok(done_or_absent(query.execute(&self.writer).await?.rows_affected()))
    }

    /// Deletes an identity that has no access keys and no policies any more (documented).
    pub async fn delete_identity(&self, id: &IdentityId) -> Result<Written, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let used = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM access_keys WHERE user = ?1) OR EXISTS (SELECT 1 FROM inline_policies WHERE identity = ?1)
                 OR EXISTS (SELECT 1 FROM attached_policies WHERE identity = ?1) AS used",
        )
        .bind(&id.0)
        .fetch_one(&mut *transaction)
        .await?;
        if used.try_get::<bool, _>("used")? {
            return Ok(Written::InUse);
        }
        let deleted = sqlx::query("DELETE FROM identities WHERE id = ?").bind(&id.0).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done_or_absent(deleted.rows_affected()))
    }
}
