//! A zip from a stranger becomes a directory.
//!
//! The archive is hostile. Three steps, each of which believes nothing the bytes claim beyond what it has checked:
//!
//! 1. `index` reads the central directory strictly: one interpretation or none. Readers that are lenient in different ways see different archives in
//!    the same bytes; a refusal has no such gap. (That, and limits that apply before anything is allocated, is why this is not the `zip` crate: it
//!    keeps the last of two entries of one name, silently, and reads an index of any length.)
//! 2. `plan` turns names into a tree: every name inside the root, no entry below a file or link, no two entries in one place, every link's target
//!    inside the root.
//! 3. `unpack` writes it into a fresh directory, links last, so that nothing is ever written through one, counting the bytes it writes rather than those promised.

mod error;
mod index;
mod limits;
mod location;
mod plan;
mod unpack;

pub use error::ArchiveError;
pub use limits::Limits;
pub use location::{InvalidLocation, S3Location};
pub use unpack::{Unpacked, unpack};

/// The one file an artifact must have.
pub const DOCKERFILE: &str = "Dockerfile";
