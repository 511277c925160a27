//! How much an artifact may be.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// The zip itself. The rest of an image comes from `FROM` and `RUN`, so this holds source code and what it carries.
const ARCHIVE_BYTES: u64 = 1024 * MIB;
/// Files, links and directories, those that are only implied by a path included. A large `node_modules` has about 50,000.
const ENTRIES: u64 = 200_000;
/// The list of entries, which is held in memory: 300 bytes for each of the above.
const INDEX_BYTES: u64 = 64 * MIB;
/// All files together: fits the smallest disk (8 GiB) beside a base image.
const UNPACKED_BYTES: u64 = 4096 * MIB;
const FILE_BYTES: u64 = 2048 * MIB;
/// Unpacked bytes per archive byte. Deflate reaches 1032 on zeros and 3 to 10 on real trees.
const RATIO: u64 = 100;
/// Below this an archive may expand as it likes: a small log full of blanks is no bomb.
const RATIO_APPLIES_ABOVE_BYTES: u64 = 64 * MIB;
/// A quarter of Linux's PATH_MAX, for the builder adds its own directories in front.
const PATH_BYTES: u64 = 1024;
const PATH_DEPTH: u64 = 64;

/// The limits in force; absent members of a configuration keep the defaults above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub archive_bytes: u64,
    pub entries: u64,
    pub index_bytes: u64,
    pub unpacked_bytes: u64,
    pub file_bytes: u64,
    pub ratio: u64,
    pub ratio_applies_above_bytes: u64,
    pub path_bytes: u64,
    pub path_depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: ARCHIVE_BYTES,
            entries: ENTRIES,
            index_bytes: INDEX_BYTES,
            unpacked_bytes: UNPACKED_BYTES,
            file_bytes: FILE_BYTES,
            ratio: RATIO,
            ratio_applies_above_bytes: RATIO_APPLIES_ABOVE_BYTES,
            path_bytes: PATH_BYTES,
            path_depth: PATH_DEPTH,
        }
    }
}
