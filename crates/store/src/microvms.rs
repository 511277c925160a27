//! MicroVMs.

use std::net::Ipv4Addr;

use emberbox_wire::arn::ImageArn;
use emberbox_wire::ids::{AccountId, EndpointId, ImageVersion, MicrovmId};
use serde_json::Value;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::codec::{json, read_json, read_optional_text, read_text, read_time, read_word, text, word};
use crate::idempotency::{ClientToken, Commit, earlier, remember};
use crate::images::{page, read_version_number};
use crate::limits::{self, Quota, Room};
use crate::records::{ImageId, MicrovmRecord, Page, SteadyLife, SteadyMillis, UnixMillis};
use crate::{Store, StoreError};

fn read(row: &SqliteRow) -> Result<MicrovmRecord, StoreError> {
    let endpoint = read_text(row, "endpoint")?;
    Ok(MicrovmRecord {
        id: read_text(row, "id")?,
        account: AccountId(row.try_get("account")?),
        endpoint: EndpointId(endpoint),
        address: read_optional_text(row, "address")?,
        image: read_text(row, "image")?,
        image_arn: read_text(row, "image_arn")?,
        version: read_version_number(row)?,
        image_key: row.try_get("image_key")?,
        memory_mib: row.try_get("memory_mib")?,
        phase: read_word(row, "phase")?,
        state_reason: row.try_get("state_reason")?,
        settings: read_json(row, "settings")?,
        timings: read_json(row, "timings")?,
        started_at: read_time(row, "started_at")?,
        phase_since: read_time(row, "phase_since")?,
        terminated_at: row.try_get::<Option<i64>, _>("terminated_at")?.map(UnixMillis),
        steady: SteadyLife {
            started: SteadyMillis(row.try_get("steady_started")?),
            since: SteadyMillis(row.try_get("steady_since")?),
            touched: SteadyMillis(row.try_get("steady_touched")?),
        },
    })
}

const INSERT: &str =
    "INSERT INTO microvms (id, account, endpoint, address, image, image_arn, major, minor, image_key, phase, state_reason, settings, timings,
                           started_at, phase_since, terminated_at, memory_mib, steady_started, steady_since, steady_touched)
     SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20
     WHERE EXISTS (SELECT 1 FROM image_versions JOIN images ON images.id = image_versions.image
                   WHERE images.id = ?5 AND image_versions.major = ?7 AND image_versions.minor = ?8 AND image_versions.state = 'SUCCESSFUL'
                   AND image_versions.status = 'ACTIVE' AND images.state NOT IN ('DELETING', 'DELETED', 'DELETE_FAILED'))
     ON CONFLICT DO NOTHING";

impl Store {
    /// Writes a new MicroVM if there is room for it. Raced: its version has stopped being launchable, or its address or endpoint is taken.
    pub async fn insert_microvm(
        &self,
        microvm: &MicrovmRecord,
        room: &Room,
        token: Option<&ClientToken>,
        answer: &Value,
    ) -> Result<Commit, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some(commit) = earlier(&mut transaction, token).await? {
            return Ok(commit);
        }
        if limits::too_many_microvms(&mut transaction, &microvm.account, room).await? {
            return Ok(Commit::OverQuota(Quota::Microvms));
        }
        if let Some(commit) = limits::refused(&mut transaction, &microvm.account, microvm.memory_mib, room).await? {
            return Ok(commit);
        }
        let result = sqlx::query(INSERT)
            .bind(text(microvm.id))
            .bind(&microvm.account.0)
            .bind(text(microvm.endpoint))
            .bind(microvm.address.map(text))
            .bind(text(microvm.image))
            .bind(text(&microvm.image_arn))
            .bind(microvm.version.major)
            .bind(microvm.version.minor)
            .bind(&microvm.image_key)
            .bind(word(microvm.phase)?)
            .bind(&microvm.state_reason)
            .bind(json(&microvm.settings)?)
            .bind(json(&microvm.timings)?)
            .bind(microvm.started_at.0)
            .bind(microvm.phase_since.0)
            .bind(microvm.terminated_at.map(|at| at.0))
            .bind(microvm.memory_mib)
            .bind(microvm.steady.started.0)
            .bind(microvm.steady.since.0)
            .bind(microvm.steady.touched.0)
            .execute(&mut *transaction)
            .await?;
        if result.rows_affected() == 0 {
            return Ok(Commit::Raced);
        }
        remember(&mut transaction, token, answer, microvm.started_at).await?;
        transaction.commit().await?;
        Ok(Commit::Done)
    }

    /// As [`Store::update_microvm`] for one that takes its memory again. Raced: there is none.
    pub async fn begin_resume(&self, microvm: &MicrovmRecord, room: &Room) -> Result<Commit, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some(commit) = limits::refused(&mut transaction, &microvm.account, microvm.memory_mib, room).await? {
            return Ok(commit);
        }
        let resumed = sqlx::query("UPDATE microvms SET phase = ?, state_reason = ?, phase_since = ?, steady_since = ? WHERE id = ?")
            .bind(word(microvm.phase)?)
            .bind(&microvm.state_reason)
            .bind(microvm.phase_since.0)
            .bind(microvm.steady.since.0)
            .bind(text(microvm.id))
            .execute(&mut *transaction)
            .await?;
        if resumed.rows_affected() == 0 {
            return Ok(Commit::Raced);
        }
        transaction.commit().await?;
        Ok(Commit::Done)
    }

    /// Writes what changes in a MicroVM's life.
    pub async fn update_microvm(&self, microvm: &MicrovmRecord) -> Result<(), StoreError> {
        let query = "UPDATE microvms SET phase = ?, state_reason = ?, timings = ?, phase_since = ?, terminated_at = ?, steady_since = ?,
                     steady_touched = max(steady_touched, ?) WHERE id = ?";
        sqlx::query(query)
            .bind(word(microvm.phase)?)
            .bind(&microvm.state_reason)
            .bind(json(&microvm.timings)?)
            .bind(microvm.phase_since.0)
            .bind(microvm.terminated_at.map(|at| at.0))
            .bind(microvm.steady.since.0)
            .bind(microvm.steady.touched.0)
            .bind(text(microvm.id))
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Keeps when each MicroVM had traffic last.
    pub async fn keep_touched(&self, touched: &[(MicrovmId, SteadyMillis)]) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await?;
        for (id, at) in touched {
            sqlx::query("UPDATE microvms SET steady_touched = max(steady_touched, ?) WHERE id = ?")
                .bind(at.0)
                .bind(text(id))
                .execute(&mut *transaction)
                .await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Forgets MicroVMs that entered TERMINATED before `limit`, and returns them.
    pub async fn forget_terminated(&self, limit: SteadyMillis) -> Result<Vec<MicrovmId>, StoreError> {
        let query = sqlx::query("DELETE FROM microvms WHERE phase = 'TERMINATED' AND steady_since < ? RETURNING id").bind(limit.0);
        query.fetch_all(&self.writer).await?.iter().map(|row| read_text(row, "id")).collect()
    }

    pub async fn microvm(&self, id: MicrovmId) -> Result<Option<MicrovmRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM microvms WHERE id = ?");
        query.bind(text(id)).fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    pub async fn microvm_by_endpoint(&self, endpoint: EndpointId) -> Result<Option<MicrovmRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM microvms WHERE endpoint = ?");
        query.bind(text(endpoint)).fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    /// Whose address it is, or was last.
    pub async fn microvm_by_address(&self, address: Ipv4Addr) -> Result<Option<MicrovmRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM microvms WHERE address = ? ORDER BY phase = 'TERMINATED', seq DESC LIMIT 1");
        query.bind(text(address)).fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    /// An account's MicroVMs, newest first, terminated ones included.
    pub async fn microvms(
        &self,
        account: &AccountId,
        image: Option<&ImageArn>,
        version: Option<ImageVersion>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<MicrovmRecord>, StoreError> {
        // One statement for each set of filters, so that each has an index that fits it whole.
        let sql = match (image, version) {
            (None, None) => "SELECT * FROM microvms WHERE account = ?1 AND seq < ?2 ORDER BY seq DESC LIMIT ?3",
            (Some(_), None) => "SELECT * FROM microvms WHERE account = ?1 AND seq < ?2 AND image_arn = ?4 ORDER BY seq DESC LIMIT ?3",
            (None, Some(_)) => {
                "SELECT * FROM microvms WHERE account = ?1 AND seq < ?2 AND major = ?5 AND minor = ?6 ORDER BY seq DESC LIMIT ?3"
            }
            (Some(_), Some(_)) => {
                "SELECT * FROM microvms WHERE account = ?1 AND seq < ?2 AND image_arn = ?4 AND major = ?5 AND minor = ?6
                 ORDER BY seq DESC LIMIT ?3"
            }
        };
        let rows = sqlx::query(sql)
            .bind(&account.0)
            .bind(after.unwrap_or(i64::MAX))
            .bind(limit + 1)
            .bind(image.map(text))
            .bind(version.map(|version| version.major))
            .bind(version.map(|version| version.minor))
            .fetch_all(&self.reader)
            .await?;
        page(&rows, limit, read)
    }

    /// Every MicroVM that is not TERMINATED.
    pub async fn live_microvms(&self) -> Result<Vec<MicrovmRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM microvms WHERE phase <> 'TERMINATED' ORDER BY seq").fetch_all(&self.reader).await?;
        rows.iter().map(read).collect()
    }

    /// How many MicroVMs of an image, or of one version of it, are not TERMINATED.
    pub async fn count_live_microvms(&self, image: ImageId, version: Option<ImageVersion>) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "SELECT count(*) AS live FROM microvms WHERE image = ?1 AND phase <> 'TERMINATED' AND (?2 IS NULL OR (major = ?2 AND minor = ?3))",
        )
        .bind(text(image))
        .bind(version.map(|version| version.major))
        .bind(version.map(|version| version.minor))
        .fetch_one(&self.reader)
        .await?;
        Ok(row.try_get::<i64, _>("live")?.unsigned_abs())
    }
}

#[cfg(test)]
#[path = "microvms_tests.rs"]
mod tests;
