//! Keys and other values made once, at first start.

use sqlx::Row;

use crate::{Store, StoreError};

impl Store {
    pub async fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT value FROM settings WHERE name = ?").bind(name).fetch_optional(&self.reader).await?;
        Ok(row.map(|row| row.try_get("value")).transpose()?)
    }

    pub async fn set_setting(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        sqlx::query("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value")
            .bind(name)
            .bind(value)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// The setting, made by `make` when it is not there yet.
    pub async fn setting_or_insert(&self, name: &str, make: impl FnOnce() -> Vec<u8>) -> Result<Vec<u8>, StoreError> {
        if let Some(value) = self.setting(name).await? {
            return Ok(value);
        }
        let row =
            sqlx::query("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET name = name RETURNING value")
                .bind(name)
                .bind(make())
                .fetch_one(&self.writer)
                .await?;
        Ok(row.try_get("value")?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_setting_is_made_once() {
        let store = Store::in_memory().await.unwrap();
        assert_eq!(store.setting("k").await.unwrap(), None);
        assert_eq!(store.setting_or_insert("k", || vec![1, 0, 255]).await.unwrap(), [1, 0, 255]);
        assert_eq!(store.setting_or_insert("k", || vec![2]).await.unwrap(), [1, 0, 255]);
        store.set_setting("k", &[3]).await.unwrap();
        assert_eq!(store.setting("k").await.unwrap().unwrap(), [3]);
    }
}
