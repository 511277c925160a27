//! Accounts.

use emberbox_wire::ids::AccountId;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::records::AccountRecord;
use crate::codec::read_time;
use crate::{Store, StoreError, UnixMillis};

fn read(row: &SqliteRow) -> Result<AccountRecord, StoreError> {
    Ok(AccountRecord { id: AccountId(row.try_get("id")?), created_at: read_time(row, "created_at")? })
}

impl Store {
    /// Adds an account; `false` when it is there already.
    pub async fn insert_account(&self, id: &AccountId, now: UnixMillis) -> Result<bool, StoreError> {
        let query = sqlx::query("INSERT INTO accounts (id, created_at) VALUES (?, ?) ON CONFLICT (id) DO NOTHING");
        Ok(query.bind(&id.0).bind(now.0).execute(&self.writer).await?.rows_affected() > 0)
    }

    pub async fn accounts(&self) -> Result<Vec<AccountRecord>, StoreError> {
        sqlx::query("SELECT * FROM accounts ORDER BY id").fetch_all(&self.reader).await?.iter().map(read).collect()
    }
}
