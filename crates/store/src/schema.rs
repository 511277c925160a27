//! The schema this version writes, and whether a database is of it.

use std::collections::BTreeSet;

use sqlx::sqlite::SqlitePool;

use crate::StoreError;

pub(crate) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

/// Changes nothing.
pub(crate) async fn compare(reader: &SqlitePool) -> Result<(), StoreError> {
    let known: BTreeSet<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    let table: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'").fetch_one(reader).await?;
    if table == 0 {
        return Err(StoreError::OlderSchema);
    }
    let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success").fetch_all(reader).await?;
    let applied: BTreeSet<i64> = applied.into_iter().collect();
    match (applied.is_subset(&known), known.is_subset(&applied)) {
        (true, true) => Ok(()),
        (true, false) => Err(StoreError::OlderSchema),
        (false, _) => Err(StoreError::NewerSchema),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::borrow::Cow;
    use std::path::Path;

    use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

    use super::*;
    use crate::Store;

    async fn write(path: &Path, migrations: usize, more: &'static str) {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
        let some = MIGRATIONS.migrations[..migrations].to_vec();
        sqlx::migrate::Migrator { migrations: Cow::Owned(some), ..sqlx::migrate::Migrator::DEFAULT }.run(&pool).await.unwrap();
        sqlx::raw_sql(more).execute(&pool).await.unwrap();
        pool.close().await;
    }

    #[tokio::test]
    async fn a_look_changes_nothing_and_refuses_what_is_of_another_version() {
        let directory = tempfile::tempdir().unwrap();
        let all = MIGRATIONS.migrations.len();
        let newer =
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9999, 'x', 1, x'00', 0)";
        for (name, migrations, more, expected) in [
            ("none", 0, "DROP TABLE _sqlx_migrations", Some("older")),
            ("older", all - 1, "", Some("older")),
            ("same", all, "", None),
            ("newer", all, newer, Some("newer")),
        ] {
            let path = directory.path().join(name);
            write(&path, migrations, more).await;
            let before = (std::fs::read(&path).unwrap(), std::fs::read_dir(directory.path()).unwrap().count());
            match (Store::inspect(&path).await, expected) {
                (Ok(store), None) => {
                    assert_eq!(store.integrity().await.unwrap(), Vec::<String>::new());
                    store.close().await;
                }
                (Err(error), Some(word)) => {
                    assert!(error.to_string().contains(&format!("of a{} {word} version", if word == "older" { "n" } else { "" })))
                }
                (Ok(_), Some(word)) => panic!("{name} is {word}"),
                (Err(error), None) => panic!("{name}: {error}"),
            }
            assert_eq!(before, (std::fs::read(&path).unwrap(), std::fs::read_dir(directory.path()).unwrap().count()), "{name}");
        }
        // With a daemon at work.
        let path = directory.path().join("open");
        let open = Store::open(&path).await.unwrap();
        let looked = Store::inspect(&path).await.unwrap();
        assert!(looked.live_microvms().await.unwrap().is_empty());
        looked.close().await;
        open.close().await;
    }
}
