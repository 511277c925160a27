//! Columns: enumerations as the words of the service model, structures as JSON, identifiers as their text.

use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::{StoreError, UnixMillis};

/// The word an enumeration is on the wire.
pub(crate) fn word<T: Serialize>(value: T) -> Result<String, StoreError> {
    match serde_json::to_value(value).map_err(StoreError::Encode)? {
        serde_json::Value::String(word) => Ok(word),
        other => Ok(other.to_string()),
    }
}

pub(crate) fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(StoreError::Encode)
}

fn decode_error<E: Into<Box<dyn std::error::Error + Send + Sync>>>(column: &'static str) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError::Decode { column, source: source.into() }
}

pub(crate) fn read_word<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_value(serde_json::Value::String(text)).map_err(decode_error(column))
}

pub(crate) fn read_json<T: DeserializeOwned>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(decode_error(column))
}

pub(crate) fn read_text<T>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError>
where
    T: FromStr,
    T::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let text: String = row.try_get(column)?;
    text.parse().map_err(decode_error(column))
}

pub(crate) fn read_optional_text<T>(row: &SqliteRow, column: &'static str) -> Result<Option<T>, StoreError>
where
    T: FromStr,
    T::Err: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let text: Option<String> = row.try_get(column)?;
    text.map(|text| text.parse().map_err(decode_error(column))).transpose()
}

pub(crate) fn read_time(row: &SqliteRow, column: &'static str) -> Result<UnixMillis, StoreError> {
    Ok(UnixMillis(row.try_get(column)?))
}

pub(crate) fn text(value: impl Display) -> String {
    value.to_string()
}
