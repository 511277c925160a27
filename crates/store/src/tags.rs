//! Tags of resources, by ARN.

use std::collections::BTreeMap;

use sqlx::{Row, Sqlite, Transaction};

use crate::{Store, StoreError};

impl Store {
    pub async fn tags(&self, arn: &str) -> Result<BTreeMap<String, String>, StoreError> {
        let rows = sqlx::query("SELECT key, value FROM tags WHERE arn = ?").bind(arn).fetch_all(&self.reader).await?;
        rows.iter().map(|row| Ok((row.try_get("key")?, row.try_get("value")?))).collect()
    }

    /// Adds tags, replacing the values of those that are there; `false`, and nothing is written, when there would be more than `most`.
    pub async fn tag(&self, arn: &str, tags: &BTreeMap<String, String>, most: usize) -> Result<bool, StoreError> {
        let mut transaction = self.writer.begin().await?;
        insert(&mut transaction, arn, tags).await?;
        let counted = sqlx::query("SELECT count(*) AS count FROM tags WHERE arn = ?").bind(arn).fetch_one(&mut *transaction).await?;
        if counted.try_get::<i64, _>("count")? > i64::try_from(most).unwrap_or(i64::MAX) {
            return Ok(false);
        }
        transaction.commit().await?;
        Ok(true)
    }

    pub async fn untag(&self, arn: &str, keys: &[String]) -> Result<(), StoreError> {
        let mut transaction = self.writer.begin().await?;
        for key in keys {
            sqlx::query("DELETE FROM tags WHERE arn = ? AND key = ?").bind(arn).bind(key).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}

pub(crate) async fn insert(
    transaction: &mut Transaction<'_, Sqlite>,
    arn: &str,
    tags: &BTreeMap<String, String>,
) -> Result<(), StoreError> {
    for (key, value) in tags {
        sqlx::query("INSERT INTO tags (arn, key, value) VALUES (?, ?, ?) ON CONFLICT (arn, key) DO UPDATE SET value = excluded.value")
            .bind(arn)
            .bind(key)
            .bind(value)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn tags_round_trip() {
        let store = Store::in_memory().await.unwrap();
        let tags = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<BTreeMap<_, _>>();
        assert!(store.tag("a", &tags(&[("x", "1"), ("y", "")]), 2).await.unwrap());
        assert!(store.tag("a", &tags(&[("x", "2")]), 2).await.unwrap());
        assert!(!store.tag("a", &tags(&[("x", "3"), ("z", "")]), 2).await.unwrap(), "one too many");
        assert!(store.tag("b", &tags(&[("z", "3")]), 2).await.unwrap());
        assert_eq!(store.tags("a").await.unwrap(), tags(&[("x", "2"), ("y", "")]));
        store.untag("a", &["y".into(), "absent".into()]).await.unwrap();
        assert_eq!(store.tags("a").await.unwrap(), tags(&[("x", "2")]));
    }
}
