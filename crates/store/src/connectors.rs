//! Customers' network connectors and their versions. A write names the state it expects to find.

use emberbox_wire::connectors::{ConnectorArn, ConnectorConfiguration, ConnectorId, ConnectorState, UpdateStatus};
use emberbox_wire::ids::AccountId;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use std::collections::BTreeMap;

use crate::codec::{json, read_json, read_text, read_time, read_word, text, word};
use crate::idempotency::{ClientToken, Commit, earlier, remember};
use crate::images::{changed, page};
use crate::limits::Quota;
use crate::records::{Page, UnixMillis};
use crate::{Store, StoreError};

#[derive(Debug, Clone, PartialEq)]
pub struct ConnectorRecord {
    pub arn: ConnectorArn,
    pub name: String,
    pub state: ConnectorState,
    pub state_reason: Option<String>,
    /// The latest version that is ACTIVE, or the first.
    pub version: u32,
    /// `None` for one that was never updated.
    pub update_status: Option<UpdateStatus>,
    pub created_at: UnixMillis,
    pub modified_at: UnixMillis,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ConnectorVersionRecord {
    pub connector: ConnectorId,
    pub version: u32,
    pub state: ConnectorState,
    pub configuration: ConnectorConfiguration,
    pub operator_role: Option<String>,
    pub modified_at: UnixMillis,
}

fn read_connector(row: &SqliteRow) -> Result<ConnectorRecord, StoreError> {
    let account = AccountId(row.try_get("account")?);
    let update_status: Option<String> = row.try_get("update_status")?;
    Ok(ConnectorRecord {
        arn: ConnectorArn { region: row.try_get("region")?, account, id: read_text(row, "id")?, version: None },
        name: row.try_get("name")?,
        state: read_word(row, "state")?,
        state_reason: row.try_get("state_reason")?,
        version: row.try_get("version")?,
        update_status: if update_status.is_some() { Some(read_word(row, "update_status")?) } else { None },
        created_at: read_time(row, "created_at")?,
        modified_at: read_time(row, "modified_at")?,
    })
}

fn read_version(row: &SqliteRow) -> Result<ConnectorVersionRecord, StoreError> {
    Ok(ConnectorVersionRecord {
        connector: read_text(row, "connector")?,
        version: row.try_get("version")?,
        state: read_word(row, "state")?,
        configuration: read_json(row, "configuration")?,
        operator_role: row.try_get("operator_role")?,
        modified_at: read_time(row, "modified_at")?,
    })
}

impl Store {
    /// The connector with this id, its tombstone included.
    pub async fn connector(&self, id: ConnectorId) -> Result<Option<ConnectorRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM network_connectors WHERE id = ?");
        query.bind(text(id)).fetch_optional(&self.reader).await?.as_ref().map(read_connector).transpose()
    }

    /// The account's connector with this name; when it was deleted, its last row.
    pub async fn connector_by_name(&self, account: &AccountId, name: &str) -> Result<Option<ConnectorRecord>, StoreError> {
        let query =
            sqlx::query("SELECT * FROM network_connectors WHERE account = ? AND name = ? ORDER BY state = 'DELETED', seq DESC LIMIT 1");
        query.bind(&account.0).bind(name).fetch_optional(&self.reader).await?.as_ref().map(read_connector).transpose()
    }

    /// An account's connectors, newest first, deleted ones left out.
    pub async fn connectors(
        &self,
        account: &AccountId,
        state: Option<ConnectorState>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<ConnectorRecord>, StoreError> {
        let sql = match state {
            Some(_) => "SELECT * FROM network_connectors WHERE account = ?1 AND seq < ?2 AND state = ?4 ORDER BY seq DESC LIMIT ?3",
            None => "SELECT * FROM network_connectors WHERE account = ?1 AND seq < ?2 AND state <> 'DELETED' ORDER BY seq DESC LIMIT ?3",
        };
        let query = sqlx::query(sql).bind(&account.0).bind(after.unwrap_or(i64::MAX)).bind(limit + 1);
        let query = match state {
            Some(state) => query.bind(word(state)?),
            None => query,
        };
        page(&query.fetch_all(&self.reader).await?, limit, read_connector)
    }

    /// One version of a connector, its tombstone included.
    pub async fn connector_version(&self, connector: ConnectorId, version: u32) -> Result<Option<ConnectorVersionRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM network_connector_versions WHERE connector = ? AND version = ?");
        query.bind(text(connector)).bind(version).fetch_optional(&self.reader).await?.as_ref().map(read_version).transpose()
    }

    /// Newest first, deleted ones left out.
    pub async fn connector_versions(
        &self,
        connector: ConnectorId,
        state: Option<ConnectorState>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<ConnectorVersionRecord>, StoreError> {
        let state = state.map(word).transpose()?;
        let rows = sqlx::query(
            "SELECT * FROM network_connector_versions WHERE connector = ?1 AND state <> 'DELETED' AND seq < ?2 AND (?4 IS NULL OR state = ?4)
             ORDER BY seq DESC LIMIT ?3",
        )
        .bind(text(connector))
        .bind(after.unwrap_or(i64::MAX))
        .bind(limit + 1)
        .bind(state)
        .fetch_all(&self.reader)
        .await?;
        page(&rows, limit, read_version)
    }

    /// Writes a new connector with its first version. Raced: the name is taken.
    pub async fn create_connector(
        &self,
        connector: &ConnectorRecord,
        version: &ConnectorVersionRecord,
        tags: &BTreeMap<String, String>,
        quota: u64,
        token: Option<&ClientToken>,
        answer: &Value,
    ) -> Result<Commit, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some(commit) = earlier(&mut transaction, token).await? {
            return Ok(commit);
        }
        let counted = sqlx::query("SELECT count(*) AS count FROM network_connectors WHERE account = ? AND state <> 'DELETED'")
            .bind(&connector.arn.account.0)
            .fetch_one(&mut *transaction)
            .await?;
        if counted.try_get::<i64, _>("count")?.unsigned_abs() >= quota {
            return Ok(Commit::OverQuota(Quota::Connectors));
        }
        let inserted = sqlx::query(
            "INSERT INTO network_connectors (id, account, region, name, state, state_reason, version, update_status, created_at, modified_at)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(text(connector.arn.id))
        .bind(&connector.arn.account.0)
        .bind(&connector.arn.region)
        .bind(&connector.name)
        .bind(word(connector.state)?)
        .bind(&connector.state_reason)
        .bind(connector.version)
        .bind(connector.update_status.map(word).transpose()?)
        .bind(connector.created_at.0)
        .bind(connector.modified_at.0)
        .execute(&mut *transaction)
        .await?;
        if !changed(&inserted) {
            return Ok(Commit::Raced);
        }
        insert_version(&mut transaction, version).await?;
        crate::tags::insert(&mut transaction, &text(&connector.arn), tags).await?;
        remember(&mut transaction, token, answer, connector.created_at).await?;
        transaction.commit().await?;
        Ok(Commit::Done)
    }

    /// The highest number a connector ever gave a version, deleted ones included.
    pub async fn newest_connector_version(&self, connector: ConnectorId) -> Result<u32, StoreError> {
        let query = sqlx::query("SELECT coalesce(max(version), 0) AS newest FROM network_connector_versions WHERE connector = ?");
        Ok(query.bind(text(connector)).fetch_one(&self.reader).await?.try_get("newest")?)
    }

    /// Adds a version, whose taking effect is then IN PROGRESS. Raced: the connector is not ACTIVE any more or another update came first.
    pub async fn begin_connector_update(
        &self,
        connector: &ConnectorRecord,
        version: &ConnectorVersionRecord,
        quota: u64,
        token: Option<&ClientToken>,
        answer: &Value,
    ) -> Result<Commit, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some(commit) = earlier(&mut transaction, token).await? {
            return Ok(commit);
        }
        let id = text(connector.arn.id);
        let counted = sqlx::query("SELECT count(*) AS count FROM network_connector_versions WHERE connector = ? AND state <> 'DELETED'");
        let counted = counted.bind(&id).fetch_one(&mut *transaction).await?;
        if counted.try_get::<i64, _>("count")?.unsigned_abs() >= quota {
            return Ok(Commit::OverQuota(Quota::ConnectorVersions));
        }
        let updated = sqlx::query(
            "UPDATE network_connectors SET update_status = 'InProgress', modified_at = ?
             WHERE id = ? AND state = 'ACTIVE' AND coalesce(update_status, '') <> 'InProgress'",
        )
        .bind(version.modified_at.0)
        .bind(&id)
        .execute(&mut *transaction)
        .await?;
        if !changed(&updated) || !insert_version(&mut transaction, version).await? {
            return Ok(Commit::Raced);
        }
        remember(&mut transaction, token, answer, version.modified_at).await?;
        transaction.commit().await?;
        Ok(Commit::Done)
    }

    /// Remembers an answer that changed nothing.
    pub async fn remember_answer(&self, token: Option<&ClientToken>, answer: &Value, now: UnixMillis) -> Result<Commit, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some(commit) = earlier(&mut transaction, token).await? {
            return Ok(commit);
        }
        remember(&mut transaction, token, answer, now).await?;
        transaction.commit().await?;
        Ok(Commit::Done)
    }

    /// Marks a connector with all its versions for deletion. Raced: it is no longer `from`, an update is in progress, or a MicroVM that is not
    /// TERMINATED goes out through it.
    pub async fn begin_connector_delete(&self, connector: &ConnectorRecord, now: UnixMillis) -> Result<Commit, StoreError> {
        let deleted = sqlx::query(
            "UPDATE network_connectors SET state = 'DELETING', modified_at = ?1
             WHERE id = ?2 AND state = ?3 AND coalesce(update_status, '') <> 'InProgress'
             AND NOT EXISTS (SELECT 1 FROM microvms, json_each(microvms.settings, '$.egress_network_connectors') AS named
                             WHERE microvms.account = ?4 AND microvms.phase <> 'TERMINATED' AND (named.value = ?5 OR named.value LIKE ?5 || ':%'))",
        )
        .bind(now.0)
        .bind(text(connector.arn.id))
        .bind(word(connector.state)?)
        .bind(&connector.arn.account.0)
        .bind(text(&connector.arn))
        .execute(&self.writer)
        .await?;
        Ok(if changed(&deleted) { Commit::Done } else { Commit::Raced })
    }

    /// Marks one version for deletion. Raced: it is the latest, or not ACTIVE, FAILED or DELETE_FAILED.
    pub async fn begin_connector_version_delete(&self, version: &ConnectorVersionRecord, now: UnixMillis) -> Result<Commit, StoreError> {
        let deleted = sqlx::query(
            "UPDATE network_connector_versions SET state = 'DELETING', modified_at = ?1
             WHERE connector = ?2 AND version = ?3 AND state IN ('ACTIVE', 'FAILED', 'DELETE_FAILED')
             AND version <> (SELECT version FROM network_connectors WHERE id = ?2)",
        )
        .bind(now.0)
        .bind(text(version.connector))
        .bind(version.version)
        .execute(&self.writer)
        .await?;
        Ok(if changed(&deleted) { Commit::Done } else { Commit::Raced })
    }

    /// Connectors with something begun that has not ended.
    pub async fn unsettled_connectors(&self) -> Result<Vec<ConnectorId>, StoreError> {
        let rows = sqlx::query(
            "SELECT id FROM network_connectors WHERE state IN ('PENDING', 'DELETING') OR update_status = 'InProgress'
             UNION SELECT connector FROM network_connector_versions WHERE state = 'DELETING'",
        )
        .fetch_all(&self.reader)
        .await?;
        rows.iter().map(|row| read_text(row, "id")).collect()
    }

    /// Ends whatever has been begun with a connector: what is PENDING is ACTIVE, what is DELETING is DELETED. May be repeated.
    pub async fn settle_connector(&self, arn: &ConnectorArn, now: UnixMillis) -> Result<(), StoreError> {
        const STEPS: [&str; 6] = [
            "UPDATE network_connector_versions SET state = 'ACTIVE' WHERE connector = ?1 AND state = 'PENDING'",
            "UPDATE network_connectors SET version = (SELECT max(version) FROM network_connector_versions WHERE connector = ?1),
             update_status = 'Successful', modified_at = ?2 WHERE id = ?1 AND update_status = 'InProgress'",
            "UPDATE network_connectors SET state = 'ACTIVE', modified_at = ?2 WHERE id = ?1 AND state = 'PENDING'",
            "UPDATE network_connectors SET state = 'DELETED', modified_at = ?2 WHERE id = ?1 AND state = 'DELETING'",
            "UPDATE network_connector_versions SET state = 'DELETED', modified_at = ?2 WHERE connector = ?1 AND (state = 'DELETING'
             OR EXISTS (SELECT 1 FROM network_connectors WHERE id = ?1 AND state = 'DELETED'))",
            "DELETE FROM tags WHERE arn = ?3 AND EXISTS (SELECT 1 FROM network_connectors WHERE id = ?1 AND state = 'DELETED')",
        ];
        let mut transaction = self.writer.begin().await?;
        for step in STEPS {
            let statement = sqlx::query(step).bind(text(arn.id)).bind(now.0).bind(text(arn.unqualified()));
            statement.execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// How many MicroVMs that are not TERMINATED go out through a connector.
    pub async fn count_connector_users(&self, arn: &ConnectorArn) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT count(DISTINCT microvms.seq) AS users FROM microvms, json_each(microvms.settings, '$.egress_network_connectors') AS named
             WHERE microvms.account = ?1 AND microvms.phase <> 'TERMINATED' AND (named.value = ?2 OR named.value LIKE ?2 || ':%')",
        )
        .bind(&arn.account.0)
        .bind(text(arn.unqualified()))
        .fetch_one(&self.reader)
        .await?;
        Ok(row.try_get::<i64, _>("users")?.unsigned_abs())
    }
}

/// `false` when the number is taken.
async fn insert_version(transaction: &mut Transaction<'_, Sqlite>, version: &ConnectorVersionRecord) -> Result<bool, StoreError> {
    let result = sqlx::query(
        "INSERT INTO network_connector_versions (connector, version, state, configuration, operator_role, modified_at)
         VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(text(version.connector))
    .bind(version.version)
    .bind(word(version.state)?)
    .bind(json(&version.configuration)?)
    .bind(&version.operator_role)
    .bind(version.modified_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(changed(&result))
}

#[cfg(test)]
#[path = "connectors_tests.rs"]
mod tests;
