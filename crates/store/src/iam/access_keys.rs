//! Access keys. The secret leaves by [`Store::access_key`] alone, which is for the verification of signatures.

use emberbox_wire::ids::AccountId;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::records::{AccessKeyRecord, IdentityId};
use super::{Written, done_or_absent};
use crate::codec::read_time;
use crate::{Store, StoreError};

fn read(row: &SqliteRow) -> Result<AccessKeyRecord, StoreError> {
    let user: Option<String> = row.try_get("user")?;
    Ok(AccessKeyRecord {
        id: row.try_get("id")?,
        account: AccountId(row.try_get("account")?),
        user: user.map(IdentityId),
        active: row.try_get("active")?,
        created_at: read_time(row, "created_at")?,
    })
}

impl Store {
    /// A key and its secret.
    pub async fn access_key(&self, id: &str) -> Result<Option<(AccessKeyRecord, String)>, StoreError> {
        let row = sqlx::query("SELECT * FROM access_keys WHERE id = ?").bind(id).fetch_optional(&self.reader).await?;
        row.map(|row| Ok((read(&row)?, row.try_get("secret")?))).transpose()
    }

    /// The first key of an account's root in the order they were made, and its secret.
    pub async fn root_access_key(&self, account: &AccountId) -> Result<Option<(AccessKeyRecord, String)>, StoreError> {
        let query = sqlx::query("SELECT * FROM access_keys WHERE account = ? AND user IS NULL ORDER BY rowid LIMIT 1");
        let row = query.bind(&account.0).fetch_optional(&self.reader).await?;
        row.map(|row| Ok((read(&row)?, row.try_get("secret")?))).transpose()
    }

    /// In the order of their making.
    pub async fn access_keys(&self, user: &IdentityId) -> Result<Vec<AccessKeyRecord>, StoreError> {
        let query = sqlx::query("SELECT * FROM access_keys WHERE user = ? ORDER BY rowid");
        query.bind(&user.0).fetch_all(&self.reader).await?.iter().map(read).collect()
    }

    /// Adds a key, unless its user has `most` already ([`Written::InUse`]) or is gone ([`Written::Absent`]).
    pub async fn insert_access_key(&self, key: &AccessKeyRecord, secret: &str, most: u32) -> Result<Written, StoreError> {
        let mut transaction = self.writer.begin().await?;
        if let Some(user) = &key.user {
            let counted = sqlx::query(
                "SELECT (SELECT count(*) FROM access_keys WHERE user = ?1) AS keys, EXISTS (SELECT 1 FROM identities WHERE id = ?1) AS there",
            );
            let counted = counted.bind(&user.0).fetch_one(&mut *transaction).await?;
            if !counted.try_get::<bool, _>("there")? {
                return Ok(Written::Absent);
            }
            if counted.try_get::<u32, _>("keys")? >= most {
                return Ok(Written::InUse);
            }
        }
        // `arn` and `user_id` were columns of their own before there were users; who owns the key is `user` now.
        sqlx::query(
            "INSERT INTO access_keys (id, secret, account, arn, user_id, user, active, created_at) VALUES (?, ?, ?, '', '', ?, ?, ?)",
        )
        .bind(&key.id)
        .bind(secret)
        .bind(&key.account.0)
        .bind(key.user.as_ref().map(|user| &user.0))
        .bind(key.active)
        .bind(key.created_at.0)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Written::Done)
    }

    pub async fn set_access_key_active(&self, user: &IdentityId, id: &str, active: bool) -> Result<Written, StoreError> {
        let query = sqlx::query("UPDATE access_keys SET active = ? WHERE id = ? AND user = ?");
        Ok(done_or_absent(query.bind(active).bind(id).bind(&user.0).execute(&self.writer).await?.rows_affected()))
    }

    pub async fn delete_access_key(&self, user: &IdentityId, id: &str) -> Result<Written, StoreError> {
        let query = sqlx::query("DELETE FROM access_keys WHERE id = ? AND user = ?");
        Ok(done_or_absent(query.bind(id).bind(&user.0).execute(&self.writer).await?.rows_affected()))
    }
}
