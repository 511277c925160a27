//! Logs of JSON lines as files: `<name>.jsonl` is appended to, `<name>-<when it was full>.jsonl` are older ones.

mod files;
mod print;

use serde::Deserialize;

pub(crate) use files::Files;
pub(crate) use print::print;

/// How much of the disk a log uses: a table of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rotation {
    /// A file that is longer is put aside.
    pub max_file_mib: u64,
    /// Files put aside that are kept.
    pub keep_files: usize,
}

impl Default for Rotation {
    fn default() -> Self {
        Self { max_file_mib: 64, keep_files: 16 }
    }
}

/// The file that is written to.
fn current(name: &str) -> String {
    format!("{name}.jsonl")
}
