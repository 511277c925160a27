//! Why an archive is refused. The text is read by whoever made the archive.

use std::io;

/// Names in here are shown with their control characters escaped.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("not a zip archive: {0}")]
    NotAZip(&'static str),
    /// It is a zip, and its parts contradict each other.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    #[error("{name:?} is damaged: {why}")]
    EntryDamaged { name: String, why: String },
    #[error("{name:?} cannot be unpacked: {why}")]
    EntryRefused { name: String, why: String },
    #[error("{0}")]
    Limit(String),
    /// No Dockerfile at the root; the hint says where there is one.
    #[error("the archive has no Dockerfile at its root{}", hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    NoDockerfile { hint: Option<String> },
    #[error("the build was abandoned")]
    Abandoned,
    /// Not the archive's fault.
    #[error("{attempted}")]
    Io { attempted: &'static str, source: io::Error },
}

impl ArchiveError {
    pub(super) fn damaged(why: impl Into<String>) -> Self {
        Self::Damaged(why.into())
    }

    pub(super) fn refused(name: &str, why: impl Into<String>) -> Self {
        Self::EntryRefused { name: shortened(name), why: why.into() }
    }

    pub(super) fn entry_damaged(name: &str, why: impl Into<String>) -> Self {
        Self::EntryDamaged { name: shortened(name), why: why.into() }
    }

    pub(super) fn io(attempted: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { attempted, source }
    }

    /// The archive ended where something should be, or could not be read at all.
    pub(super) fn reading(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Self::Damaged(format!("it ends within {what}")),
            _ => Self::Io { attempted: "read the archive", source },
        }
    }
}

/// Enough of a name to find it by.
const SHOWN_CHARACTERS: usize = 120;

fn shortened(name: &str) -> String {
    match name.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}
