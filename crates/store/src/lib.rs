//! Records of the daemon and the typed queries over them, in SQLite.
//!
//! Owns the schema (`migrations/`) and what one transaction must hold together: a record and the client token that made it, a change of an image
//! and the condition under which it is allowed. Must never decide: every state it writes was chosen by `emberbox-control`.
//!
//! One connection writes, so transactions never conflict; others read beside it (WAL). A commit is on the disk when it returns (`synchronous=FULL`).
#![forbid(unsafe_code)]

mod codec;
mod connectors;
mod iam;
mod idempotency;
mod images;
mod journal;
mod limits;
mod microvms;
#[cfg(test)]
mod plans_tests;
mod records;
mod reserve;
mod schema;
mod settings;
mod tags;
#[cfg(feature = "testing")]
pub mod testing;

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Row;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

pub use connectors::{ConnectorRecord, ConnectorVersionRecord};
pub use iam::{
    AccessKeyRecord, AccountRecord, IdentityId, IdentityKind, IdentityRecord, IdentitySettings, ManagedPolicyRecord, PolicyVersionRecord,
    RoleSettings, Written,
};
pub use idempotency::{ClientToken, Commit};
pub use images::{NewImage, VersionChange, VersionOutcome};
pub use journal::JournalDamage;
pub use limits::{Quota, Room};
pub use records::{
    BuildRecord, IdleSignal, ImageId, ImageRecord, ListedImage, MicrovmRecord, Page, Phase, RunSettings, SnapshotBytes, SteadyLife,
    SteadyMillis, UnixMillis, VersionRecord,
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
    /// Acknowledged records are lost: nothing may be decided by what is left until somebody has accepted that ([`Store::accept_lost_records`]).
    #[error(transparent)]
    Journal(#[from] JournalDamage),
    #[error("the database's journal could not be read")]
    ReadJournal(#[source] std::io::Error),
    #[error("the database is damaged: {0}")]
    Damaged(String),
    #[error("the disk is full")]
    Full(#[source] sqlx::Error),
    #[error("a query failed")]
    Query(#[source] sqlx::Error),
    #[error("the database is of an older version of Emberbox")]
    OlderSchema,
    #[error("the database is of a newer version of Emberbox than this one")]
    NewerSchema,
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
    path: Option<PathBuf>,
    // Last: their tasks hold files of the database open, which must not be closed before it is.
    _kept: Vec<Arc<Kept>>,
}

/// Ends the task with the last copy of its store.
#[derive(Debug)]
struct Kept(tokio::task::JoinHandle<()>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What an operator does about [`StoreError::Full`], for the log.
pub const FREE_SPACE: &str =
    "the disk is full and nothing can be written down: free some of its space (what runs goes on, and the daemon goes on by itself then)";

/// SQLite's words for a disk that is full: of a write, and of the journal's index.
const FULL: [&str; 2] = ["13", "4874"];

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code().map(|code| FULL.contains(&&*code)));
        if code == Some(true) { Self::Full(error) } else { Self::Query(error) }
    }
}

impl Store {
    /// Opens or creates the database at `path` and brings it to this version's schema. Refuses one that has lost what was acknowledged.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        journal::check(path).map_err(StoreError::ReadJournal)??;
        reserve::release(path).map_err(StoreError::ReadJournal)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = pool(1).connect_with(options.clone()).await.map_err(StoreError::Open)?;
        check(&writer).await?;
        schema::MIGRATIONS.run(&writer).await?;
        let reader = pool(READERS).connect_with(options).await.map_err(StoreError::Open)?;
        let reserve = reserve::Reserve::open(path).map_err(StoreError::ReadJournal)?;
        if let Err(error) = reserve.fill() {
            tracing::warn!(%error, "no space on the disk can be set aside for the records");
        }
        let tasks = [tokio::spawn(journal::keep_head(path.to_path_buf())), tokio::spawn(reserve.keep())];
        let kept = tasks.into_iter().map(|task| Arc::new(Kept(task))).collect();
        Ok(Self { writer, reader, path: Some(path.to_path_buf()), _kept: kept })
    }

    /// Opens a database to look at it: nothing is made, brought to this version's schema or written. Refuses one of another version.
    pub async fn inspect(path: &Path) -> Result<Self, StoreError> {
        journal::check(path).map_err(StoreError::ReadJournal)??;
        // Without a journal nobody has it open, and SQLite need not make one to read.
        let closed = !journal::path_of(path, "-wal").exists();
        let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(closed).busy_timeout(BUSY_TIMEOUT);
        let reader = pool(1).connect_with(options).await.map_err(StoreError::Open)?;
        check(&reader).await?;
        schema::compare(&reader).await?;
        Ok(Self { writer: reader.clone(), reader, path: None, _kept: Vec::new() })
    }

    /// Lets go of what a damaged journal has lost, so that [`Store::open`] succeeds with the records before it. Returns where the whole journal is kept; `None`
    /// when it is not damaged.
    pub fn accept_lost_records(path: &Path) -> Result<Option<PathBuf>, StoreError> {
        match journal::check(path).map_err(StoreError::ReadJournal)? {
            Ok(()) => Ok(None),
            Err(damage) => journal::cut(path, &damage).map(Some).map_err(StoreError::ReadJournal),
        }
    }

    /// A database that ends with the process, for tests.
    pub async fn in_memory() -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::from_str("sqlite::memory:").map_err(StoreError::Open)?.foreign_keys(true);
        // One connection that is never replaced: each connection to `:memory:` is a database of its own.
        let writer = pool(1).connect_with(options).await.map_err(StoreError::Open)?;
        schema::MIGRATIONS.run(&writer).await?;
        Ok(Self { reader: writer.clone(), writer, path: None, _kept: Vec::new() })
    }

    /// What is wrong with the database itself, in SQLite's words; nothing, as a rule.
    pub async fn integrity(&self) -> Result<Vec<String>, StoreError> {
        let checked = sqlx::query("PRAGMA integrity_check").fetch_all(&self.reader).await?;
        let mut wrong = checked.iter().map(|row| row.try_get("integrity_check")).collect::<Result<Vec<String>, _>>()?;
        wrong.retain(|line| line != "ok");
        let keys = sqlx::query("PRAGMA foreign_key_check").fetch_all(&self.reader).await?;
        for row in keys {
            wrong.push(format!("a row of {} refers to a missing one", row.try_get::<String, _>("table")?));
        }
        Ok(wrong)
    }

    /// Waits for running queries and closes the files.
    pub async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
        if let Some(path) = &self.path
            && let Err(error) = reserve::keep_for_start(path)
        {
            tracing::warn!(%error, "no space on the disk can be set aside for the next start");
        }
    }
}

/// Whether tables and indices are what SQLite can read: milliseconds for thousands of records.
async fn check(writer: &SqlitePool) -> Result<(), StoreError> {
    let found: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(writer).await?;
    match found.as_str() {
        "ok" => Ok(()),
        _ => Err(StoreError::Damaged(found)),
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
