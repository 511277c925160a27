//! Records of the daemon and the typed queries over them, in SQLite.
//!
//! Owns the schema (`migrations/`) and what one transaction must hold together: a record and the client token that made it, a change of an image
//! and the condition under which it is allowed. Must never decide: every state it writes was chosen by `emberbox-control`.
//!
//! One connection writes, so transactions never conflict; others read beside it (WAL). A commit is on the disk when it returns (`synchronous=FULL`).
#![forbid(unsafe_code)]

mod access_keys;
mod codec;
mod connectors;
mod idempotency;
mod images;
mod limits;
mod microvms;
#[cfg(test)]
mod plans_tests;
mod records;
mod settings;
mod tags;
#[cfg(feature = "testing")]
pub mod testing;

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

pub use connectors::{ConnectorRecord, ConnectorVersionRecord};
pub use idempotency::{ClientToken, Commit};
pub use images::{NewImage, VersionChange, VersionOutcome};
pub use limits::{Quota, Room};
pub use records::{
    BuildRecord, ImageId, ImageRecord, ListedImage, MicrovmRecord, Page, Phase, RunSettings, SnapshotBytes, UnixMillis, VersionRecord,
};

/// How long a statement waits for a lock another process holds (a backup, `sqlite3` in an operator's hands) before it fails.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Readers beside the writer: listings are short, more connections only cost memory.
const READERS: u32 = 4;

/// What the database could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database could not be opened")]
    Open(#[source] sqlx::Error),
    #[error("the database could not be migrated")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("a query failed")]
    Query(#[from] sqlx::Error),
    #[error("column {column} holds what this version cannot read")]
    Decode {
        column: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("a record could not be encoded")]
    Encode(#[source] serde_json::Error),
}

/// The daemon's records.
#[derive(Debug, Clone)]
pub struct Store {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl Store {
    /// Opens or creates the database at `path` and brings it to this version's schema.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = pool(1).connect_with(options.clone()).await.map_err(StoreError::Open)?;
        sqlx::migrate!().run(&writer).await?;
        let reader = pool(READERS).connect_with(options).await.map_err(StoreError::Open)?;
        Ok(Self { writer, reader })
    }

    /// A database that ends with the process, for tests.
    pub async fn in_memory() -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite::memory:").map_err(StoreError::Open)?.foreign_keys(true);
        // One connection that is never replaced: each connection to `:memory:` is a database of its own.
        let writer = pool(1).connect_with(options).await.map_err(StoreError::Open)?;
        sqlx::migrate!().run(&writer).await?;
        Ok(Self { reader: writer.clone(), writer })
    }

    /// Waits for running queries and closes the files.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// So many connections, opened at once and kept: a request never pays for opening a file, and a file has no connection to lose.
fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .min_connections(connections)
        .max_connections(connections)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}
