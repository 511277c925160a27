//! The files: appended to, put aside when long, deleted when old.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::SystemTime;

use emberbox_wire::audit::{Actor, AuditEvent};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use uuid::Uuid;

use super::Message;

pub(super) const CURRENT: &str = "audit.jsonl";
const PREFIX: &str = "audit-";
const SUFFIX: &str = ".jsonl";

/// Files put aside, oldest first: their names sort by time.
pub(super) fn put_aside(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

pub(super) struct Files {
    directory: PathBuf,
    max_bytes: u64,
    keep: usize,
    current: BufWriter<File>,
    length: u64,
}

impl Files {
    pub(super) fn open(directory: &Path, max_bytes: u64, keep: usize) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let (current, length) = open(directory)?;
        Ok(Self { directory: directory.to_path_buf(), max_bytes, keep, current, length })
    }

    fn append(&mut self, line: &str) -> io::Result<()> {
        if self.length >= self.max_bytes {
            self.rotate()?;
        }
        self.current.write_all(line.as_bytes())?;
        self.current.write_all(b"\n")?;
        self.length += line.len() as u64 + 1;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.current.flush()?;
        let now = OffsetDateTime::now_utc();
        let when = now.format(format_description!("[year][month][day]T[hour][minute][second].[subsecond digits:6]Z"));
        let name = format!("{PREFIX}{}{SUFFIX}", when.map_err(io::Error::other)?);
        std::fs::rename(self.directory.join(CURRENT), self.directory.join(name))?;
        (self.current, self.length) = open(&self.directory)?;
        let old = put_aside(&self.directory)?;
        for path in old.iter().take(old.len().saturating_sub(self.keep)) {
            std::fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn open(directory: &Path) -> io::Result<(BufWriter<File>, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(directory.join(CURRENT))?;
    let length = file.metadata()?.len();
    Ok((BufWriter::with_capacity(64 * 1024, file), length))
}

pub(super) struct Writer {
    files: Files,
    lost: Arc<AtomicU64>,
    region: String,
    failing: bool,
}

impl Writer {
    pub(super) fn new(files: Files, lost: Arc<AtomicU64>) -> Self {
        Self { files, lost, region: String::new(), failing: false }
    }

    /// Returns when nobody can report any more.
    pub(super) fn write_all(mut self, messages: &Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            self.take(message);
            while let Ok(message) = messages.try_recv() {
                self.take(message);
            }
            self.confess();
            self.flush();
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Event(event, at) => self.write(&event, at),
            Message::Flush(done) => {
                self.flush();
                // Who asked may have stopped waiting.
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, event: &AuditEvent, at: SystemTime) {
        self.region.clone_from(&event.region);
        // CloudTrail counts in seconds.
        let at = OffsetDateTime::from(at);
        let time = at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
        let record = event.record(&time, &Uuid::new_v4().to_string());
        if let Err(error) = self.files.append(&record.to_string()) {
            self.failed(&error);
        }
    }

    /// Writes down how many events were lost since it last did.
    fn confess(&mut self) {
        let count = self.lost.swap(0, Ordering::Relaxed);
        if count == 0 {
            return;
        }
        tracing::warn!(count, "events of the audit log were lost: they came faster than the disk takes them, or it is full");
        let event = AuditEvent {
            source: "emberbox".into(),
            name: "AuditEventsLost".into(),
            region: self.region.clone(),
            actor: Actor::Service,
            address: None,
            user_agent: None,
            request_id: None,
            request: None,
            response: None,
            error: None,
            read_only: false,
            account: None,
            resources: Vec::new(),
            details: Some(json!({"count": count})),
        };
        self.write(&event, SystemTime::now());
    }

    fn flush(&mut self) {
        match self.files.current.flush() {
            Ok(()) => self.failing = false,
            Err(error) => self.failed(&error),
        }
    }

    /// One line in the daemon's log for a run of failures.
    fn failed(&mut self, error: &io::Error) {
        self.lost.fetch_add(1, Ordering::Relaxed);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(%error, "the audit log could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn long_files_are_put_aside_and_old_ones_deleted() {
        let directory = tempfile::tempdir().unwrap();
        let mut files = Files::open(directory.path(), 1000, 3).unwrap();
        for n in 0..100 {
            files.append(&format!("{n:099}")).unwrap();
        }
        files.current.flush().unwrap();
        let kept = put_aside(directory.path()).unwrap();
        assert_eq!(kept.len(), 3);
        let mut text = String::new();
        for path in kept.iter().cloned().chain([directory.path().join(CURRENT)]) {
            text += &std::fs::read_to_string(path).unwrap();
        }
        let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(numbers, (60..100).collect::<Vec<_>>(), "the newest, in their order and whole");
    }

    #[test]
    fn a_restart_goes_on_in_the_same_file() {
        let directory = tempfile::tempdir().unwrap();
        for line in ["one", "two"] {
            let mut files = Files::open(directory.path(), 1000, 3).unwrap();
            files.append(line).unwrap();
            files.current.flush().unwrap();
        }
        assert_eq!(std::fs::read_to_string(directory.path().join(CURRENT)).unwrap(), "one\ntwo\n");
    }
}
