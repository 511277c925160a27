//! Managed policies of accounts and their versions.

use emberbox_wire::ids::AccountId;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::records::{ManagedPolicyRecord, PolicyVersionRecord};
use super::{Written, done_or_absent};
use crate::codec::read_time;
use crate::images::page;
use crate::records::Page;
use crate::{Store, StoreError, UnixMillis};

fn read(row: &SqliteRow) -> Result<ManagedPolicyRecord, StoreError> {
    Ok(ManagedPolicyRecord {
        id: row.try_get("id")?,
        account: AccountId(row.try_get("account")?),
        name: row.try_get("name")?,
        path: row.try_get("path")?,
        description: row.try_get("description")?,
        default_version: row.try_get("default_version")?,
        newest_version: row.try_get("newest_version")?,
        created_at: read_time(row, "created_at")?,
        updated_at: read_time(row, "updated_at")?,
    })
}

fn read_version(row: &SqliteRow) -> Result<PolicyVersionRecord, StoreError> {
    Ok(PolicyVersionRecord {
        version: row.try_get("version")?,
        document: row.try_get("document")?,
        created_at: read_time(row, "created_at")?,
    })
}

impl Store {
    /// A policy with its first version.
    pub async fn insert_managed_policy(&self, record: &ManagedPolicyRecord, document: &str) -> Result<Written, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let inserted = sqlx::query(
            "INSERT INTO managed_policies (id, account, name, path, arn, description, default_version, newest_version, created_at, updated_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(&record.id)
        .bind(&record.account.0)
        .bind(&record.name)
        .bind(&record.path)
        .bind(record.arn())
        .bind(&record.description)
        .bind(record.default_version)
        .bind(record.newest_version)
        .bind(record.created_at.0)
        .bind(record.updated_at.0)
        .execute(&mut *transaction)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok(Written::Exists);
        }
        sqlx::query("INSERT INTO policy_versions (policy, version, document, created_at) VALUES (?, ?, ?, ?)")
            .bind(&record.id)
            .bind(record.newest_version)
            .bind(document)
            .bind(record.created_at.0)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(Written::Done)
    }

    pub async fn managed_policy(&self, arn: &str) -> Result<Option<ManagedPolicyRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM managed_policies WHERE arn = ?");
        query.bind(arn).fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    pub async fn managed_policies(
        &self,
        account: &AccountId,
        path_prefix: &str,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<ManagedPolicyRecord>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM managed_policies WHERE account = ? AND seq > ? AND substr(path, 1, length(?)) = ? ORDER BY seq LIMIT ?",
        )
        .bind(&account.0)
        .bind(after.unwrap_or_default())
        .bind(path_prefix)
        .bind(path_prefix)
        .bind(i64::from(limit) + 1)
        .fetch_all(&self.reader)
        .await?;
        page(&rows, limit, read)
    }

    /// The document in force.
    pub async fn managed_policy_document(&self, arn: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "SELECT document FROM policy_versions v JOIN managed_policies p ON v.policy = p.id AND v.version = p.default_version
             WHERE p.arn = ?",
        )
        .bind(arn)
        .fetch_optional(&self.reader)
        .await?;
        Ok(row.map(|row| row.try_get("document")).transpose()?)
    }

    /// Newest first.
    pub async fn policy_versions(&self, policy: &str) -> Result<Vec<PolicyVersionRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM policy_versions WHERE policy = ? ORDER BY version DESC");
        query.bind(policy).fetch_all(&self.reader).await?.iter().map(read_version).collect()
    }

    /// Adds a version, unless there are `most` already ([`Written::InUse`]). Answers its number.
    pub async fn insert_policy_version(
        &self,
        policy: &str,
        document: &str,
        make_default: bool,
        most: u32,
        now: UnixMillis,
    ) -> Result<Result<u32, Written>, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let counted = sqlx::query(
            "SELECT newest_version, (SELECT count(*) FROM policy_versions WHERE policy = ?1) AS found FROM managed_policies WHERE id = ?1",
        )
        .bind(policy)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(counted) = counted else { return Ok(Err(Written::Absent)) };
        if counted.try_get::<u32, _>("found")? >= most {
            return Ok(Err(Written::InUse));
        }
        let version = counted.try_get::<u32, _>("newest_version")? + 1;
        sqlx::query("INSERT INTO policy_versions (policy, version, document, created_at) VALUES (?, ?, ?, ?)")
            .bind(policy)
            .bind(version)
            .bind(document)
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
        sqlx::query(
            "UPDATE managed_policies SET newest_version = ?2, updated_at = ?3, default_version = iif(?4, ?2, default_version) WHERE id = ?1",
        )
        .bind(policy)
        .bind(version)
        .bind(now.0)
        .bind(make_default)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Ok(version))
    }

    pub async fn set_default_policy_version(&self, policy: &str, version: u32, now: UnixMillis) -> Result<Written, StoreError> {
        let query = sqlx::query(
            "UPDATE managed_policies SET default_version = ?2, updated_at = ?3
             WHERE id = ?1 AND EXISTS (SELECT 1 FROM policy_versions WHERE policy = ?1 AND version = ?2)",
        );
        Ok(done_or_absent(query.bind(policy).bind(version).bind(now.0).execute(&self.writer).await?.rows_affected()))
    }

    /// The version in force stays ([`Written::InUse`]).
    pub async fn delete_policy_version(&self, policy: &str, version: u32) -> Result<Written, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let query = sqlx::query("SELECT 1 FROM managed_policies WHERE id = ? AND default_version = ?");
        if query.bind(policy).bind(version).fetch_optional(&mut *transaction).await?.is_some() {
            return Ok(Written::InUse);
        }
        let query = sqlx::query("DELETE FROM policy_versions WHERE policy = ? AND version = ?");
        let deleted = query.bind(policy).bind(version).execute(&mut *transaction).await?.rows_affected();
        transaction.commit().await?;
        Ok(done_or_absent(deleted))
    }

    /// A policy that is attached, or has versions beside the one in force, stays (documented).
    pub async fn delete_managed_policy(&self, policy: &ManagedPolicyRecord) -> Result<Written, StoreError> {
        let mut transaction = self.writer.begin().await?;
        let used = sqlx::query(
            "SELECT EXISTS (SELECT 1 FROM attached_policies WHERE policy_arn = ?) OR
                 (SELECT count(*) FROM policy_versions WHERE policy = ?) > 1 AS used",
        )
        .bind(policy.arn())
        .bind(&policy.id)
        .fetch_one(&mut *transaction)
        .await?;
        if used.try_get::<bool, _>("used")? {
            return Ok(Written::InUse);
        }
        let deleted = sqlx::query("DELETE FROM managed_policies WHERE id = ?").bind(&policy.id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(done_or_absent(deleted.rows_affected()))
    }
}
