//! Space on the disk that belongs to the records alone: on a full disk it can still be written down what became of what was begun.
//!
//! Blocks are set aside behind the ends of the database and of its journal, where SQLite is going to write and nobody else can (a ballast file would give its
//! space to whoever writes first, as a rule a guest). A file beside them holds what a start needs: SQLite deletes the journal at an orderly end.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::journal::path_of;

/// Of the journal in all. It is used again from its beginning after some 4 MiB, unless the database cannot grow any more: then it is what is left.
const JOURNAL: u64 = 8 << 20;
/// What the database may grow by.
const DATABASE: u64 = 4 << 20;
/// The journal that a start makes anew, and the small files it writes beside.
const START: u64 = JOURNAL + (4 << 20);
/// A disk that was full may have room again.
const EVERY: Duration = Duration::from_secs(1);
/// Until then what a start needs is the start's that goes on.
const STARTED_WITHIN: Duration = Duration::from_secs(10);
const SUFFIX: &str = "-reserve";

/// The files of an open database. They stay open until the database is closed: closing any descriptor of a file takes the process's locks of that file away,
/// SQLite's too.
#[derive(Debug)]
pub(crate) struct Reserve {
    database: File,
    journal: File,
    for_start: PathBuf,
}

impl Reserve {
    pub(crate) fn open(database: &Path) -> io::Result<Self> {
        let writable = |path: &Path| File::options().write(true).open(path);
        Ok(Self { database: writable(database)?, journal: writable(&path_of(database, "-wal"))?, for_start: path_of(database, SUFFIX) })
    }

    /// Sets aside what is not.
    pub(crate) fn fill(&self) -> io::Result<()> {
        hold(&self.journal, JOURNAL)?;
        hold(&self.database, self.database.metadata()?.len() + DATABASE)
    }

    /// For as long as the task lives.
    pub(crate) async fn keep(self) {
        let (mut said, since) = (false, Instant::now());
        loop {
            tokio::time::sleep(EVERY).await;
            let for_start = || if since.elapsed() < STARTED_WITHIN { Ok(()) } else { set_aside_for_start(&self.for_start) };
            match self.fill().and_then(|()| for_start()) {
                Ok(()) => said = false,
                Err(error) if !said => {
                    said = true;
                    tracing::warn!(
                        %error,
                        "no space on the disk can be set aside for the records: once it is full nothing can be written down any more; free some of it"
                    );
                }
                Err(_) => {}
            }
        }
    }
}

/// What a start needs is its own again.
pub(crate) fn release(database: &Path) -> io::Result<()> {
    match fs::remove_file(path_of(database, SUFFIX)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// After an orderly end. Somebody else may have been faster: the start says so then.
pub(crate) fn keep_for_start(database: &Path) -> io::Result<()> {
    set_aside_for_start(&path_of(database, SUFFIX))
}

fn set_aside_for_start(path: &Path) -> io::Result<()> {
    hold(&File::options().create(true).append(true).open(path)?, START)
}

/// Has the file own its first `bytes` bytes on the disk, beyond its end too.
fn hold(file: &File, bytes: u64) -> io::Result<()> {
    if file.metadata()?.blocks() * 512 >= bytes {
        return Ok(());
    }
    let length = i64::try_from(bytes).map_err(io::Error::other)?;
    match fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
        // A file system that cannot promise space.
        Err(Errno::EOPNOTSUPP) => Ok(()),
        other => other.map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Store;

    fn occupied(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * 512
    }

    #[tokio::test]
    async fn space_is_set_aside_while_a_database_is_open_and_for_its_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let beside = path_of(&path, SUFFIX);
        for _ in 0..2 {
            let store = Store::open(&path).await.unwrap();
            assert!(occupied(&path) >= fs::metadata(&path).unwrap().len() + DATABASE);
            assert!(occupied(&path_of(&path, "-wal")) >= JOURNAL);
            assert!(!beside.exists(), "the start may use it");
            // It is space, no content: the records are what they were.
            assert_eq!(store.integrity().await.unwrap(), Vec::<String>::new());
            store.close().await;
            // SQLite deletes the journal when its last connection is gone, which may be a moment later, on a thread of its own.
            assert!(occupied(&beside) >= START, "{} of {START}", occupied(&beside));
        }
    }
}
