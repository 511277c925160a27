//! Policies that belong to one identity, and those attached to it.

use sqlx::Row;

use super::records::IdentityId;
use super::{Written, done_or_absent};
use crate::{Store, StoreError};

/// Inline policies.
impl Store {
    /// Adds or replaces a policy.
    pub async fn put_inline_policy(&self, identity: &IdentityId, name: &str, document: &str) -> Result<(), StoreError> {
        sqlx::query(
            "INSERT INTO inline_policies (identity, name, document) VALUES (?, ?, ?)
             ON CONFLICT (identity, name) DO UPDATE SET document = excluded.document",
        )
        .bind(&identity.0)
        .bind(name)
        .bind(document)
        .execute(&self.writer)
        .await?;
        Ok(())
    }

    /// `(name, document)` in the order of their names.
    pub async fn inline_policies(&self, identity: &IdentityId) -> Result<Vec<(String, String)>, StoreError> {
        let rows = sqlx::query("SELECT name, document FROM inline_policies WHERE identity = ? ORDER BY name")
            .bind(&identity.0)
            .fetch_all(&self.reader)
            .await?;
        rows.iter().map(|row| Ok((row.try_get("name")?, row.try_get("document")?))).collect()
    }

    /// As [`Store::inline_policies`], of one.
    pub async fn inline_policy(&self, identity: &IdentityId, name: &str) -> Result<Option<(String, String)>, StoreError> {
        let query = sqlx::query("SELECT name, document FROM inline_policies WHERE identity = ? AND name = ?");
        let row = query.bind(&identity.0).bind(name).fetch_optional(&self.reader).await?;
        row.map(|row| Ok((row.try_get("name")?, row.try_get("document")?))).transpose()
    }

    pub async fn delete_inline_policy(&self, identity: &IdentityId, name: &str) -> Result<Written, StoreError> {
        let query = sqlx::query("DELETE FROM inline_policies WHERE identity = ? AND name = ?");
        Ok(done_or_absent(query.bind(&identity.0).bind(name).execute(&self.writer).await?.rows_affected()))
    }
}

/// Attachments.
impl Store {
    /// Attaching what is attached changes nothing.
    pub async fn attach_policy(&self, identity: &IdentityId, policy_arn: &str) -> Result<(), StoreError> {
        let query = sqlx::query("INSERT INTO attached_policies (identity, policy_arn) VALUES (?, ?) ON CONFLICT DO NOTHING");
        query.bind(&identity.0).bind(policy_arn).execute(&self.writer).await?;
        Ok(())
    }

    pub async fn detach_policy(&self, identity: &IdentityId, policy_arn: &str) -> Result<Written, StoreError> {
        let query = sqlx::query("DELETE FROM attached_policies WHERE identity = ? AND policy_arn = ?");
        Ok(done_or_absent(query.bind(&identity.0).bind(policy_arn).execute(&self.writer).await?.rows_affected()))
    }

    /// ARNs in their order.
    pub async fn attached_policies(&self, identity: &IdentityId) -> Result<Vec<String>, StoreError> {
        let query = sqlx::query("SELECT policy_arn FROM attached_policies WHERE identity = ? ORDER BY policy_arn");
        query.bind(&identity.0).fetch_all(&self.reader).await?.iter().map(|row| Ok(row.try_get("policy_arn")?)).collect()
    }

    pub async fn count_attachments(&self, policy_arn: &str) -> Result<u32, StoreError> {
        let query = sqlx::query("SELECT count(*) AS found FROM attached_policies WHERE policy_arn = ?");
        Ok(query.bind(policy_arn).fetch_one(&self.reader).await?.try_get("found")?)
    }
}
