//! Access keys of accounts.

use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::ids::AccountId;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::{Store, StoreError};

fn read(row: &SqliteRow) -> Result<AccessKey, StoreError> {
    let caller = Caller { account: AccountId(row.try_get("account")?), arn: row.try_get("arn")?, user_id: row.try_get("user_id")? };
    Ok(AccessKey { id: row.try_get("id")?, secret: row.try_get("secret")?, caller })
}

impl Store {
    pub async fn access_key(&self, id: &str) -> Result<Option<AccessKey>, StoreError> {
        let row = sqlx::query("SELECT * FROM access_keys WHERE id = ?").bind(id).fetch_optional(&self.reader).await?;
        row.as_ref().map(read).transpose()
    }

    /// The first key of an account in the order they were made.
    pub async fn first_access_key(&self, account: &AccountId) -> Result<Option<AccessKey>, StoreError> {
        let query = sqlx::query("SELECT * FROM access_keys WHERE account = ? ORDER BY rowid LIMIT 1");
        query.bind(&account.0).fetch_optional(&self.reader).await?.as_ref().map(read).transpose()
    }

    pub async fn insert_access_key(&self, key: &AccessKey) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO access_keys (id, secret, account, arn, user_id) VALUES (?, ?, ?, ?, ?)")
            .bind(&key.id)
            .bind(&key.secret)
            .bind(&key.caller.account.0)
            .bind(&key.caller.arn)
            .bind(&key.caller.user_id)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn an_access_key_round_trips() {
        let store = Store::in_memory().await.unwrap();
        let account = AccountId("123456789012".into());
        let caller = Caller { account: account.clone(), arn: "arn:aws:iam::123456789012:root".into(), user_id: "123456789012".into() };
        let key = AccessKey { id: "AKIAX".into(), secret: "s".into(), caller };
        assert_eq!(store.first_access_key(&account).await.unwrap(), None);
        store.insert_access_key(&key).await.unwrap();
        assert_eq!(store.access_key("AKIAX").await.unwrap(), Some(key.clone()));
        assert_eq!(store.first_access_key(&account).await.unwrap(), Some(key));
        assert_eq!(store.access_key("AKIAY").await.unwrap(), None);
    }
}
