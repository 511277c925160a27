//! Small JSON files that prove themselves: `{"format": n, "checksum": "...", "content": {...}}`. The checksum is over the content as it was understood, so
//! that a damaged word cannot pass for another one; white space is free.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use twox_hash::XxHash3_128;

use crate::layout::write_atomically;

#[derive(Serialize, Deserialize)]
struct Sealed {
    format: u32,
    /// XXH3-128 of `format` and the compact form of `content`, hexadecimal.
    checksum: String,
    content: Value,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DocumentError {
    #[error("it cannot be read")]
    Unreadable(#[from] io::Error),
    #[error("it is damaged")]
    Damaged,
    #[error("it has format {0}, which this version does not read")]
    Format(u64),
}

/// Writes `content` so that the file holds either its old content or all of the new one.
pub(crate) fn write(path: &Path, format: u32, content: &impl Serialize) -> io::Result<()> {
    let content = serde_json::to_value(content)?;
    let sealed = Sealed { format, checksum: checksum(format, &content), content };
    write_atomically(path, &serde_json::to_vec_pretty(&sealed)?)
}

/// Reads a file of format `format`. One of an earlier format, which had no checksum, is handed to `earlier` with its number.
pub(crate) fn read<T: DeserializeOwned>(
    path: &Path,
    format: u32,
    earlier: impl FnOnce(u64, Value) -> Option<T>,
) -> Result<T, DocumentError> {
    let text = std::fs::read(path)?;
    let value: Value = serde_json::from_slice(&text).map_err(|_| DocumentError::Damaged)?;
    let found = value.get("format").and_then(Value::as_u64);
    if found == Some(format.into()) {
        let sealed: Sealed = serde_json::from_value(value).map_err(|_| DocumentError::Damaged)?;
        let whole = sealed.checksum == checksum(format, &sealed.content);
        return whole.then(|| serde_json::from_value(sealed.content).ok()).flatten().ok_or(DocumentError::Damaged);
    }
    // A damaged number must not make a new file pass for an old one.
    let sealed = value.get("checksum").is_some();
    match found {
        Some(number) if number > format.into() && sealed => Err(DocumentError::Format(number)),
        _ if sealed => Err(DocumentError::Damaged),
        number => earlier(number.unwrap_or_default(), value).ok_or(DocumentError::Damaged),
    }
}

fn checksum(format: u32, content: &Value) -> String {
    // Values keep their members in the order of their names, so equal contents have equal forms.
    hex::encode(XxHash3_128::oneshot(format!("{format}:{content}").as_bytes()).to_be_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn none(_: u64, _: Value) -> Option<Value> {
        None
    }

    #[test]
    fn every_flipped_bit_is_noticed_or_harmless() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("document");
        let content = json!({"image": "image-1", "numbers": [1, 2, 30], "nested": {"a": null, "b": true}});
        write(&path, 2, &content).unwrap();
        assert_eq!(read(&path, 2, none).unwrap(), content);
        let whole = std::fs::read(&path).unwrap();
        for index in 0..whole.len() {
            for bit in 0..8 {
                let mut damaged = whole.clone();
                damaged[index] ^= 1 << bit;
                std::fs::write(&path, &damaged).unwrap();
                if let Ok(read) = read(&path, 2, none) {
                    assert_eq!(read, content, "byte {index} bit {bit}");
                    assert!(whole[index].is_ascii_whitespace(), "byte {index} bit {bit} changed nothing");
                }
            }
        }
    }

    #[test]
    fn formats_that_are_not_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("document");
        std::fs::write(&path, r#"{"format": 1, "old": true}"#).unwrap();
        assert_eq!(read(&path, 2, |format, value| Some(json!([format, value["old"]]))).unwrap(), json!([1, true]));
        write(&path, 3, &json!({})).unwrap();
        assert!(matches!(read(&path, 2, none), Err(DocumentError::Format(3))));
        assert!(matches!(read(&directory.path().join("absent"), 2, none), Err(DocumentError::Unreadable(_))));
    }
}
