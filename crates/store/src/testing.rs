//! What happened to states, in the order of the commits. For tests of other crates: in temporary tables, which no file keeps.

use sqlx::Row;

use crate::{Store, StoreError};

/// One written change of a state: of a record that has just been made, from nothing; of one that is no longer there, to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    /// The table.
    pub record: String,
    pub id: String,
    pub from: Option<String>,
    pub to: Option<String>,
}

/// Table, what tells its records apart, and the column of the state.
const STATES: [(&str, &str, &str); 4] =
    [("microvms", "id", "phase"), ("images", "id", "state"), ("image_versions", "image_key", "state"), ("builds", "id", "state")];

impl Store {
    /// Writes changes of states down from now on. Of a database in memory, which has one connection.
    pub async fn watch_states(&self) -> Result<(), StoreError> {
        let mut script = String::from(
            "CREATE TEMP TABLE state_changes (seq INTEGER PRIMARY KEY, record TEXT NOT NULL, id TEXT NOT NULL, was TEXT, became TEXT);",
        );
        for (table, id, state) in STATES {
            let events = [
                ("INSERT", format!("'{table}', NEW.{id}, NULL, NEW.{state}"), String::new()),
                ("UPDATE", format!("'{table}', NEW.{id}, OLD.{state}, NEW.{state}"), format!("WHEN OLD.{state} <> NEW.{state}")),
                ("DELETE", format!("'{table}', OLD.{id}, OLD.{state}, NULL"), String::new()),
            ];
            for (event, values, condition) in events {
                script.push_str(&format!(
                    "CREATE TEMP TRIGGER {table}_{event} AFTER {event} ON main.{table} {condition}
                     BEGIN INSERT INTO state_changes (record, id, was, became) VALUES ({values}); END;"
                ));
            }
        }
        sqlx::raw_sql(&script).execute(&self.writer).await?;
        Ok(())
    }

    /// The changes since [`Store::watch_states`].
    pub async fn state_changes(&self) -> Result<Vec<StateChange>, StoreError> {
        let rows = sqlx::query("SELECT * FROM state_changes ORDER BY seq").fetch_all(&self.writer).await?;
        rows.iter()
            .map(|row| {
                Ok(StateChange {
                    record: row.try_get("record")?,
                    id: row.try_get("id")?,
                    from: row.try_get("was")?,
                    to: row.try_get("became")?,
                })
            })
            .collect()
    }
}
