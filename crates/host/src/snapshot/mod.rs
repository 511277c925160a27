//! Snapshots on disk: what describes them, what proves that they are whole, and what has been proved already.
//!
//! Nothing of a snapshot reaches a guest unproved (`docs/decisions/0050-*`): a machine's own files are read and summed before its application runs, an
//! image's large ones once, and again only when they are not the files that were summed.

pub(crate) mod document;
pub(crate) mod manifest;
pub(crate) mod packed;
pub(crate) mod sum;
pub(crate) mod verify;

pub(crate) use manifest::{EngineIdentity, Manifest};
