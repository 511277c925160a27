//! Client tokens: the same token with the same parameters answers what it answered first (documented).
//!
//! The token is claimed in the transaction that writes what it asked for, so a crash or a concurrent duplicate can never make the thing twice.

use emberbox_wire::ids::AccountId;
use serde_json::Value;
use sqlx::{Row, Sqlite, Transaction};

use crate::codec::json;
use crate::limits::Quota;
use crate::{Store, StoreError, UnixMillis};

/// A token as one request brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientToken {
    pub account: AccountId,
    pub operation: &'static str,
    pub token: String,
    /// Of the request's other parameters.
    pub digest: String,
}

/// How a conditional write ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Commit {
    Done,
    /// The token was used before for the same request: answer this again.
    Replayed(Value),
    /// The token was used before for another request.
    TokenReused,
    /// The records are no longer as the caller saw them, or a unique value is taken. Nothing was written.
    Raced,
    /// The account has all it may have. Nothing was written.
    OverQuota(Quota),
    /// The host has no memory left for it. Nothing was written.
    NoRoom,
}

impl Store {
    /// The answer a token has been given before, as [`Commit::Replayed`] or [`Commit::TokenReused`].
    pub async fn replay(&self, token: &ClientToken) -> Result<Option<Commit>, StoreError> {
        let mut transaction = self.reader.begin().await?;
        earlier(&mut transaction, Some(token)).await
    }

    /// Forgets tokens used before `limit`, and of each account's all but the `most` latest.
    pub async fn forget_client_tokens(&self, limit: UnixMillis, most: u32) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM client_tokens WHERE created_at < ?").bind(limit.0).execute(&self.writer).await?;
        let accounts = sqlx::query("SELECT account FROM client_tokens GROUP BY account HAVING count(*) > ?").bind(most);
        for row in accounts.fetch_all(&self.reader).await? {
            sqlx::query(
                "DELETE FROM client_tokens WHERE account = ?1 AND created_at <
                 (SELECT created_at FROM client_tokens WHERE account = ?1 ORDER BY created_at DESC LIMIT 1 OFFSET ?2)",
            )
            .bind(row.try_get::<String, _>("account")?)
            .bind(most - 1)
            .execute(&self.writer)
            .await?;
        }
        Ok(())
    }
}

pub(crate) async fn earlier(transaction: &mut Transaction<'_, Sqlite>, token: Option<&ClientToken>) -> Result<Option<Commit>, StoreError> {
    let Some(token) = token else { return Ok(None) };
    let row = sqlx::query("SELECT digest, answer FROM client_tokens WHERE account = ? AND operation = ? AND token = ?")
        .bind(&token.account.0)
        .bind(token.operation)
        .bind(&token.token)
        .fetch_optional(&mut **transaction)
        .await?;
    let Some(row) = row else { return Ok(None) };
    if row.try_get::<String, _>("digest")? != token.digest {
        return Ok(Some(Commit::TokenReused));
    }
    crate::codec::read_json(&row, "answer").map(|answer| Some(Commit::Replayed(answer)))
}

pub(crate) async fn remember(
    transaction: &mut Transaction<'_, Sqlite>,
    token: Option<&ClientToken>,
    answer: &Value,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let Some(token) = token else { return Ok(()) };
    sqlx::query("INSERT INTO client_tokens (account, operation, token, digest, answer, created_at) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(&token.account.0)
        .bind(token.operation)
        .bind(&token.token)
        .bind(&token.digest)
        .bind(json(answer)?)
        .bind(now.0)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
