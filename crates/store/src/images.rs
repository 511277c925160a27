//! Images, their versions and builds. A write names the state it expects to find, so that two concurrent requests cannot both be allowed.

use std::collections::BTreeMap;

use emberbox_wire::arn::ImageArn;
use emberbox_wire::ids::{AccountId, BuildId, ImageVersion};
use emberbox_wire::microvms::{BuildState, ImageState, VersionState, VersionStatus};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use crate::codec::{json, read_json, read_optional_text, read_text, read_time, read_word, text, word};
use crate::idempotency::{ClientToken, Commit, earlier, remember};
use crate::limits::{self, Quota};
use crate::records::{BuildRecord, ImageId, ImageRecord, ListedImage, Page, SnapshotBytes, UnixMillis, VersionRecord};
use crate::{Store, StoreError};

/// What a change of a build means for its version and image; all three are written together.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionOutcome {
    pub image: ImageId,
    pub version: ImageVersion,
    pub build: BuildId,
    pub image_state: ImageState,
    pub version_state: VersionState,
    pub status: VersionStatus,
    pub build_state: BuildState,
    pub reason: Option<String>,
    pub sizes: SnapshotBytes,
    pub timings: Value,
    pub built: Option<Value>,
    pub now: UnixMillis,
}

/// A new image with its first version and build.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NewImage<'a> {
    pub image: &'a ImageRecord,
    pub version: &'a VersionRecord,
    pub build: &'a BuildRecord,
    pub tags: &'a BTreeMap<String, String>,
}

/// A new version with its build, and what the image becomes by it.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionChange<'a> {
    pub version: &'a VersionRecord,
    pub build: &'a BuildRecord,
    /// What the image must be for the version to be added.
    pub from: ImageState,
    pub to: ImageState,
}

fn read_image(row: &SqliteRow) -> Result<ImageRecord, StoreError> {
    Ok(ImageRecord {
        id: read_text(row, "id")?,
        arn: read_text(row, "arn")?,
        state: read_word(row, "state")?,
        created_at: read_time(row, "created_at")?,
        updated_at: read_time(row, "updated_at")?,
    })
}

pub(crate) fn read_version_number(row: &SqliteRow) -> Result<ImageVersion, StoreError> {
    Ok(ImageVersion { major: row.try_get("major")?, minor: row.try_get("minor")? })
}

fn read_version(row: &SqliteRow) -> Result<VersionRecord, StoreError> {
    let built: Option<String> = row.try_get("built")?;
    Ok(VersionRecord {
        image: read_text(row, "image")?,
        version: read_version_number(row)?,
        state: read_word(row, "state")?,
        status: read_word(row, "status")?,
        state_reason: row.try_get("state_reason")?,
        definition: read_json(row, "definition")?,
        image_key: row.try_get("image_key")?,
        built: if built.is_some() { Some(read_json(row, "built")?) } else { None },
        created_at: read_time(row, "created_at")?,
        updated_at: read_time(row, "updated_at")?,
    })
}

fn read_build(row: &SqliteRow) -> Result<BuildRecord, StoreError> {
    Ok(BuildRecord {
        id: BuildId(row.try_get("id")?),
        image: read_text(row, "image")?,
        version: read_version_number(row)?,
        state: read_word(row, "state")?,
        state_reason: row.try_get("state_reason")?,
        sizes: read_json(row, "sizes")?,
        timings: read_json(row, "timings")?,
        created_at: read_time(row, "created_at")?,
        updated_at: read_time(row, "updated_at")?,
    })
}

pub(crate) fn page<T>(rows: &[SqliteRow], limit: u32, read: impl Fn(&SqliteRow) -> Result<T, StoreError>) -> Result<Page<T>, StoreError> {
    let items = rows.iter().map(|row| Ok((row.try_get("seq")?, read(row)?))).collect::<Result<Vec<_>, StoreError>>()?;
    Ok(Page::of(items, limit))
}

/// `true` when the statement met its condition.
pub(crate) fn changed(result: &sqlx::sqlite::SqliteQueryResult) -> bool {
    result.rows_affected() > 0
}

/// A page costs what is on it, but for names to be looked through, which are in the index.
pub(crate) const LIST_IMAGES: &str = "SELECT images.*,
    (SELECT major || '.' || minor FROM image_versions WHERE image = images.id AND state = 'SUCCESSFUL' AND status = 'ACTIVE'
     ORDER BY major DESC, minor DESC LIMIT 1) AS latest_active,
    (SELECT major || '.' || minor FROM image_versions WHERE image = images.id AND state = 'FAILED'
     ORDER BY major DESC, minor DESC LIMIT 1) AS latest_failed
    FROM images WHERE account = ?1 AND state <> 'DELETED' AND (?2 IS NULL OR instr(name, ?2) > 0) AND seq < ?3 ORDER BY seq DESC LIMIT ?4";

/// Images.
impl Store {
    /// The image with this ARN; when it was deleted, its last row.
    pub async fn image_by_arn(&self, arn: &ImageArn) -> Result<Option<ImageRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM images WHERE arn = ? ORDER BY state = 'DELETED', seq DESC LIMIT 1");
        query.bind(text(arn)).fetch_optional(&self.reader).await?.as_ref().map(read_image).transpose()
    }

    pub async fn image(&self, id: ImageId) -> Result<Option<ImageRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM images WHERE id = ?");
        query.bind(text(id)).fetch_optional(&self.reader).await?.as_ref().map(read_image).transpose()
    }

    /// An account's images, newest first, deleted ones left out, with their latest versions.
    pub async fn images(
        &self,
        account: &AccountId,
        name_contains: Option<&str>,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<ListedImage>, StoreError> {
        let rows = sqlx::query(LIST_IMAGES)
            .bind(&account.0)
            .bind(name_contains)
            .bind(after.unwrap_or(i64::MAX))
            .bind(limit + 1)
            .fetch_all(&self.reader)
            .await?;
        page(&rows, limit, |row| {
            Ok(ListedImage {
                image: read_image(row)?,
                latest_active: read_optional_text(row, "latest_active")?,
                latest_failed: read_optional_text(row, "latest_failed")?,
            })
        })
    }

    pub async fn images_in(&self, state: ImageState) -> Result<Vec<ImageRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM images WHERE state = ?").bind(word(state)?).fetch_all(&self.reader).await?;
        rows.iter().map(read_image).collect()
    }

    /// Writes a new image with its first version and build. Raced: the name is taken.
    pub async fn create_image(
        &self,
        new: &NewImage<'_>,
        quota: u64,
        token: Option<&ClientToken>,
        answer: &Value,
    ) -> Result<Commit, StoreError> {
        let NewImage { image, version, build, tags } = *new;
        let mut transaction = self.writer.begin().await?;
        if let Some(commit) = earlier(&mut transaction, token).await? {
            return Ok(commit);
        }
        const COUNT: &str = "SELECT count(*) AS used FROM images WHERE account = ? AND state <> 'DELETED'";
        if limits::used(&mut transaction, COUNT, Some(&image.arn.account)).await? >= quota {
            return Ok(Commit::OverQuota(Quota::Images));
        }
        let inserted = sqlx::query(
            "INSERT INTO images (id, account, name, arn, state, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(text(image.id))
        .bind(&image.arn.account.0)
        .bind(&image.arn.name)
        .bind(text(&image.arn))
        .bind(word(image.state)?)
        .bind(image.created_at.0)
        .bind(image.updated_at.0)
        .execute(&mut *transaction)
        .await?;
        if !changed(&inserted) {
            return Ok(Commit::Raced);
        }
        insert_version(&mut transaction, version).await?;
        insert_build(&mut transaction, build).await?;
        crate::tags::insert(&mut transaction, &text(&image.arn), tags).await?;
        remember(&mut transaction, token, answer, image.created_at).await?;
        transaction.commit().await?;
        Ok(Commit::Done)
    }

    /// Marks an image for deletion. Raced: it is no longer `from`, or a MicroVM of it lives.
    pub async fn begin_image_delete(&self, image: ImageId, from: ImageState, now: UnixMillis) -> Result<Commit, StoreError> {
        let result = sqlx::query(
            "UPDATE images SET state = 'DELETING', updated_at = ? WHERE id = ? AND state = ?
             AND NOT EXISTS (SELECT 1 FROM microvms WHERE image = images.id AND phase <> 'TERMINATED')",
        )
        .bind(now.0)
        .bind(text(image))
        .bind(word(from)?)
        .execute(&self.writer)
        .await?;
        Ok(if changed(&result) { Commit::Done } else { Commit::Raced })
    }

    /// Ends a deletion: the image and its versions are DELETED and its tags gone, or it is DELETE_FAILED.
    pub async fn end_image_delete(&self, image: &ImageRecord, deleted: bool, now: UnixMillis) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await?;
        let state = if deleted { ImageState::Deleted } else { ImageState::DeleteFailed };
        let update = sqlx::query("UPDATE images SET state = ?, updated_at = ? WHERE id = ?");
        update.bind(word(state)?).bind(now.0).bind(text(image.id)).execute(&mut *transaction).await?;
        if deleted {
            let update = sqlx::query("UPDATE image_versions SET state = 'DELETED', status = 'INACTIVE', updated_at = ? WHERE image = ?");
            update.bind(now.0).bind(text(image.id)).execute(&mut *transaction).await?;
            sqlx::query("DELETE FROM tags WHERE arn = ?").bind(text(&image.arn)).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}

/// Versions.
impl Store {
    /// The names of all versions' files, and what has become of each version.
    pub async fn version_files(&self) -> Result<Vec<(String, VersionState)>, StoreError> {
        let rows = sqlx::query("SELECT image_key, state FROM image_versions").fetch_all(&self.reader).await?;
        rows.iter().map(|row| Ok((row.try_get("image_key")?, read_word(row, "state")?))).collect()
    }

    pub async fn version(&self, image: ImageId, version: ImageVersion) -> Result<Option<VersionRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM image_versions WHERE image = ? AND major = ? AND minor = ?");
        let row = query.bind(text(image)).bind(version.major).bind(version.minor).fetch_optional(&self.reader).await?;
        row.as_ref().map(read_version).transpose()
    }

    /// Newest first, deleted ones left out.
    pub async fn versions(&self, image: ImageId, after: Option<i64>, limit: u32) -> Result<Page<VersionRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM image_versions WHERE image = ?1 AND state <> 'DELETED' AND seq < ?2 ORDER BY seq DESC LIMIT ?3")
                .bind(text(image))
                .bind(after.unwrap_or(i64::MAX))
                .bind(limit + 1)
                .fetch_all(&self.reader)
                .await?;
        page(&rows, limit, read_version)
    }

    /// The highest number an image ever gave a version, deleted ones included.
    pub async fn newest_version(&self, image: ImageId) -> Result<Option<ImageVersion>, StoreError> {
        let query = sqlx::query("SELECT major, minor FROM image_versions WHERE image = ? ORDER BY major DESC, minor DESC LIMIT 1");
        query.bind(text(image)).fetch_optional(&self.reader).await?.as_ref().map(read_version_number).transpose()
    }

    /// `latestActiveImageVersion`: what RunMicrovm takes when no version is named.
    pub async fn latest_active_version(&self, image: ImageId) -> Result<Option<VersionRecord>, StoreError> {
        let query = sqlx::query(
            "SELECT * FROM image_versions WHERE image = ? AND state = 'SUCCESSFUL' AND status = 'ACTIVE' ORDER BY major DESC, minor DESC LIMIT 1",
        );
        query.bind(text(image)).fetch_optional(&self.reader).await?.as_ref().map(read_version).transpose()
    }

    /// `latestFailedImageVersion`.
    pub async fn latest_failed_version(&self, image: ImageId) -> Result<Option<ImageVersion>, StoreError> {
        let query = sqlx::query(
            "SELECT major, minor FROM image_versions WHERE image = ? AND state = 'FAILED' ORDER BY major DESC, minor DESC LIMIT 1",
        );
        query.bind(text(image)).fetch_optional(&self.reader).await?.as_ref().map(read_version_number).transpose()
    }

    pub async fn versions_in(&self, state: VersionState) -> Result<Vec<VersionRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM image_versions WHERE state = ?").bind(word(state)?).fetch_all(&self.reader).await?;
        rows.iter().map(read_version).collect()
    }

    /// Adds a version and its build. Raced: the image is no longer what it was, or another request took the number.
    pub async fn add_version(
        &self,
        change: &VersionChange<'_>,
        quota: u64,
        token: Option<&ClientToken>,
        answer: &Value,
    ) -> Result<Commit, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some(commit) = earlier(&mut transaction, token).await? {
            return Ok(commit);
        }
        let counted = sqlx::query("SELECT count(*) AS used FROM image_versions WHERE image = ? AND state <> 'DELETED'");
        let counted = counted.bind(text(change.version.image)).fetch_one(&mut *transaction).await?;
        if counted.try_get::<i64, _>("used")?.unsigned_abs() >= quota {
            return Ok(Commit::OverQuota(Quota::ImageVersions));
        }
        let now = change.version.created_at;
        let result = sqlx::query("UPDATE images SET state = ?, updated_at = ? WHERE id = ? AND state = ?")
            .bind(word(change.to)?)
            .bind(now.0)
            .bind(text(change.version.image))
            .bind(word(change.from)?)
            .execute(&mut *transaction)
            .await?;
        if !changed(&result) || !insert_version(&mut transaction, change.version).await? {
            return Ok(Commit::Raced);
        }
        insert_build(&mut transaction, change.build).await?;
        remember(&mut transaction, token, answer, now).await?;
        transaction.commit().await?;
        Ok(Commit::Done)
    }

    /// Raced: the version is not SUCCESSFUL.
    pub async fn set_version_status(
        &self,
        image: ImageId,
        version: ImageVersion,
        status: VersionStatus,
        now: UnixMillis,
    ) -> Result<Commit, StoreError> {
        let result = sqlx::query(
            "UPDATE image_versions SET status = ?, updated_at = ? WHERE image = ? AND major = ? AND minor = ? AND state = 'SUCCESSFUL'",
        )
        .bind(word(status)?)
        .bind(now.0)
        .bind(text(image))
        .bind(version.major)
        .bind(version.minor)
        .execute(&self.writer)
        .await?;
        Ok(if changed(&result) { Commit::Done } else { Commit::Raced })
    }

    /// Marks a version for deletion. Raced: it is no longer `from`, it is the image's last, or a MicroVM of it lives.
    pub async fn begin_version_delete(&self, version: &VersionRecord, from: VersionState, now: UnixMillis) -> Result<Commit, StoreError> {
        let result = sqlx::query(
            "UPDATE image_versions SET state = 'DELETING', status = 'INACTIVE', updated_at = ?1
             WHERE image = ?2 AND major = ?3 AND minor = ?4 AND state = ?5
             AND EXISTS (SELECT 1 FROM image_versions other WHERE other.image = ?2 AND other.major <> ?3
                         AND other.state NOT IN ('DELETING', 'DELETED', 'DELETE_FAILED'))
             AND NOT EXISTS (SELECT 1 FROM microvms WHERE microvms.image = ?2 AND microvms.major = ?3 AND phase <> 'TERMINATED')",
        )
        .bind(now.0)
        .bind(text(version.image))
        .bind(version.version.major)
        .bind(version.version.minor)
        .bind(word(from)?)
        .execute(&self.writer)
        .await?;
        Ok(if changed(&result) { Commit::Done } else { Commit::Raced })
    }

    pub async fn end_version_delete(&self, version: &VersionRecord, to: VersionState, now: UnixMillis) -> Result<(), StoreError> {
        sqlx::query("UPDATE image_versions SET state = ?, updated_at = ? WHERE image = ? AND major = ? AND minor = ?")
            .bind(word(to)?)
            .bind(now.0)
            .bind(text(version.image))
            .bind(version.version.major)
            .bind(version.version.minor)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

/// Builds.
impl Store {
    pub async fn build(&self, image: ImageId, version: ImageVersion, id: &BuildId) -> Result<Option<BuildRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM builds WHERE image = ? AND major = ? AND minor = ? AND id = ?");
        let query = query.bind(text(image)).bind(version.major).bind(version.minor).bind(&id.0);
        query.fetch_optional(&self.reader).await?.as_ref().map(read_build).transpose()
    }

    pub async fn builds(
        &self,
        image: ImageId,
        version: ImageVersion,
        after: Option<i64>,
        limit: u32,
    ) -> Result<Page<BuildRecord>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM builds WHERE image = ?1 AND major = ?2 AND minor = ?3 AND seq < ?4 ORDER BY seq DESC LIMIT ?5")
                .bind(text(image))
                .bind(version.major)
                .bind(version.minor)
                .bind(after.unwrap_or(i64::MAX))
                .bind(limit + 1)
                .fetch_all(&self.reader)
                .await?;
        page(&rows, limit, read_build)
    }

    /// Builds that are neither SUCCESSFUL nor FAILED.
    pub async fn unfinished_builds(&self) -> Result<Vec<BuildRecord>, StoreError> {
        let rows = sqlx::query("SELECT * FROM builds WHERE state IN ('PENDING', 'IN_PROGRESS')").fetch_all(&self.reader).await?;
        rows.iter().map(read_build).collect()
    }

    /// Writes the beginning of a build that holds `memory_mib` until its end; `false` when the host has no room for it now.
    pub async fn begin_build(&self, outcome: &VersionOutcome, memory_mib: u32, host_mib: u64) -> Result<bool, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if !limits::host_has_room(&mut transaction, memory_mib, host_mib).await? {
            return Ok(false);
        }
        let update = sqlx::query("UPDATE builds SET memory_mib = ? WHERE id = ?");
        update.bind(memory_mib).bind(&outcome.build.0).execute(&mut *transaction).await?;
        write_outcome(&mut transaction, outcome).await?;
        transaction.commit().await?;
        Ok(true)
    }

    pub async fn write_build(&self, outcome: &VersionOutcome) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await?;
        write_outcome(&mut transaction, outcome).await?;
        Ok(transaction.commit().await?)
    }
}

async fn write_outcome(transaction: &mut Transaction<'_, Sqlite>, outcome: &VersionOutcome) -> Result<(), StoreError> {
    let (image, major, minor) = (text(outcome.image), outcome.version.major, outcome.version.minor);
    sqlx::query("UPDATE images SET state = ?, updated_at = ? WHERE id = ?")
        .bind(word(outcome.image_state)?)
        .bind(outcome.now.0)
        .bind(&image)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(
        "UPDATE image_versions SET state = ?, status = ?, state_reason = ?, built = ?, updated_at = ? WHERE image = ? AND major = ? AND minor = ?",
    )
    .bind(word(outcome.version_state)?)
    .bind(word(outcome.status)?)
    .bind(&outcome.reason)
    .bind(outcome.built.as_ref().map(json).transpose()?)
    .bind(outcome.now.0)
    .bind(&image)
    .bind(major)
    .bind(minor)
    .execute(&mut **transaction)
    .await?;
    sqlx::query("UPDATE builds SET state = ?, state_reason = ?, sizes = ?, timings = ?, updated_at = ? WHERE id = ?")
        .bind(word(outcome.build_state)?)
        .bind(&outcome.reason)
        .bind(json(&outcome.sizes)?)
        .bind(json(&outcome.timings)?)
        .bind(outcome.now.0)
        .bind(&outcome.build.0)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

/// `false` when the number is taken.
async fn insert_version(transaction: &mut Transaction<'_, Sqlite>, version: &VersionRecord) -> Result<bool, StoreError> {
    let result = sqlx::query(
        "INSERT INTO image_versions (image, major, minor, state, status, state_reason, definition, image_key, built, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(text(version.image))
    .bind(version.version.major)
    .bind(version.version.minor)
    .bind(word(version.state)?)
    .bind(word(version.status)?)
    .bind(&version.state_reason)
    .bind(json(&version.definition)?)
    .bind(&version.image_key)
    .bind(version.built.as_ref().map(json).transpose()?)
    .bind(version.created_at.0)
    .bind(version.updated_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(changed(&result))
}

async fn insert_build(transaction: &mut Transaction<'_, Sqlite>, build: &BuildRecord) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO builds (id, image, major, minor, state, state_reason, sizes, timings, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&build.id.0)
    .bind(text(build.image))
    .bind(build.version.major)
    .bind(build.version.minor)
    .bind(word(build.state)?)
    .bind(&build.state_reason)
    .bind(json(&build.sizes)?)
    .bind(json(&build.timings)?)
    .bind(build.created_at.0)
    .bind(build.updated_at.0)
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

#[cfg(test)]
#[path = "images_tests.rs"]
pub(crate) mod tests;
