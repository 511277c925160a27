//! What a snapshot keeps of a balloon. Which pages are in it, the guest knows.

use serde::{Deserialize, Serialize};

/// Both in pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BalloonRecord {
    pub wanted: u32,
    pub actual: u32,
}
