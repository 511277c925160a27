//! The files: appended to, put aside when long, deleted when old.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;
use time::macros::format_description;

use super::{Rotation, current};

const SUFFIX: &str = ".jsonl";

/// Files put aside, oldest first: their names sort by time.
pub(super) fn put_aside(directory: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let (prefix, mut files) = (format!("{name}-"), Vec::new());
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with(&prefix) && name.ends_with(SUFFIX) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(crate) struct Files {
    directory: PathBuf,
    name: &'static str,
    max_bytes: u64,
    keep: usize,
    current: BufWriter<File>,
    length: u64,
}

impl Files {
    pub(crate) fn open(directory: &Path, name: &'static str, rotation: &Rotation) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let (current, length) = open(&directory.join(current(name)))?;
        let max_bytes = rotation.max_file_mib.saturating_mul(1 << 20);
        Ok(Self { directory: directory.to_path_buf(), name, max_bytes, keep: rotation.keep_files, current, length })
    }

    pub(crate) fn append(&mut self, line: &str) -> io::Result<()> {
        if self.length >= self.max_bytes {
            self.rotate()?;
        }
        self.current.write_all(line.as_bytes())?;
        self.current.write_all(b"\n")?;
        self.length += line.len() as u64 + 1;
        Ok(())
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.current.flush()
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.current.flush()?;
        let now = OffsetDateTime::now_utc();
        let when = now.format(format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:6]Z"));
        let aside = format!("{}-{}{SUFFIX}", self.name, when.map_err(io::Error::other)?);
        let path = self.directory.join(current(self.name));
        std::fs::rename(&path, self.directory.join(aside))?;
        (self.current, self.length) = open(&path)?;
        let old = put_aside(&self.directory, self.name)?;
        for path in old.iter().take(old.len().saturating_sub(self.keep)) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((BufWriter::with_capacity(64 * 1024, file), length))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn files(directory: &Path) -> Files {
        let files = Files::open(directory, "log", &Rotation { max_file_mib: 1, keep_files: 3 }).unwrap();
        Files { max_bytes: 1000, ..files }
    }

    #[test]
    fn long_files_are_put_aside_and_old_ones_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = files(directory.path());
        for n in 0..100 {
            files.append(&format!("{n:099}")).unwrap();
        }
        files.flush().unwrap();
        let kept = put_aside(directory.path(), "log").unwrap();
        assert_eq!(kept.len(), 3);
        let mut text = String::new();
        for path in kept.iter().cloned().chain([directory.path().join("log.jsonl")]) {
            text += &std::fs::read_to_string(path).unwrap();
        }
        let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, (60..100).collect::<Vec<_>>(), "the newest, in their order and whole");
    }

    #[test]
    fn a_restart_goes_on_in_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        for line in ["one", "two"] {
            let mut files = files(directory.path());
            files.append(line).unwrap();
            files.flush().unwrap();
        }
        assert_eq!(std::fs::read_to_string(directory.path().join("log.jsonl")).unwrap(), "one\ntwo\n");
    }
}
