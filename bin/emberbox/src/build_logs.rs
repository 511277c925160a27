//! Log streams as files: one for each stream, below a directory for each account and group.
//!
//! What is written comes from hostile builds: names are encoded so that none is a path, and a stream has a largest size.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use emberbox_control::{LogEntry, LogSink};

/// A stream that is longer ends with a line that says so.
const MAX_STREAM_BYTES: u64 = 32 * 1024 * 1024;
/// Lines that wait for the disk.
const QUEUE: usize = 2048;
/// What is kept for days is looked at this often.
const REAP_EVERY: Duration = Duration::from_secs(60 * 60);
/// Streams whose files are kept open.
const OPEN_STREAMS: usize = 64;

/// Writes on a thread of its own.
pub(crate) struct BuildLogs {
    queue: mpsc::SyncSender<LogEntry>,
    lost: AtomicU64,
}

impl BuildLogs {
    /// `keep`: how long a stream stays that nothing is written to; zero for ever.
    pub(crate) fn start(root: PathBuf, keep: Duration) -> io::Result<Self> {
        std::fs::create_dir_all(&root)?;
        let (queue, entries) = mpsc::sync_channel(QUEUE);
        std::thread::Builder::new()
            .name("build-logs".into())
            .spawn(move || Writer { root, keep, open: HashMap::new() }.write_all(&entries))?;
        Ok(Self { queue, lost: AtomicU64::new(0) })
    }
}

impl LogSink for BuildLogs {
    fn write(&self, entry: LogEntry) {
        // Never waits: this is called on the daemon's async threads, and what a build prints must not hold them up.
        if self.queue.try_send(entry).is_err() && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("builds print faster than the disk takes it: lines of their logs are lost");
        }
    }
}

struct Writer {
    root: PathBuf,
    keep: Duration,
    open: HashMap<PathBuf, (File, u64)>,
}

impl Writer {
    fn write_all(mut self, entries: &mpsc::Receiver<LogEntry>) {
        let mut reaped: Option<Instant> = None;
        loop {
            if !self.keep.is_zero() && reaped.is_none_or(|at| at.elapsed() >= REAP_EVERY) {
                reaped = Some(Instant::now());
                self.reap(SystemTime::now());
            }
            match entries.recv_timeout(REAP_EVERY) {
                Ok(entry) => {
                    if let Err(error) = self.write(&entry) {
                        tracing::warn!(%error, "a line of a build's log was lost");
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
    }

    /// Deletes streams that are old, and groups without any.
    fn reap(&mut self, now: SystemTime) {
        // A stream that is held open could be deleted under its next line.
        self.open.clear();
        let mut reaped = 0;
        for group in directories(&self.root).iter().flat_map(|account| directories(account)) {
            for stream in std::fs::read_dir(&group).into_iter().flatten().flatten() {
                let written = stream.metadata().and_then(|metadata| metadata.modified());
                let old = written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > self.keep));
                if old && std::fs::remove_file(stream.path()).is_ok() {
                    reaped += 1;
                }
            }
            // Succeeds for an empty one.
            let _ = std::fs::remove_dir(&group);
        }
        if reaped > 0 {
            tracing::info!(reaped, "old log streams were deleted");
        }
    }

    fn write(&mut self, entry: &LogEntry) -> io::Result<()> {
        let directory = self.root.join(encode(&entry.account.0)).join(encode(&entry.group));
        let path = directory.join(encode(&entry.stream));
        if !self.open.contains_key(&path) {
            if self.open.len() >= OPEN_STREAMS {
                self.open.clear();
            }
            std::fs::create_dir_all(&directory)?;
            let file = OpenOptions::new().append(true).create(true).open(&path)?;
            let length = file.metadata()?.len();
            self.open.insert(path.clone(), (file, length));
        }
        let Some((file, length)) = self.open.get_mut(&path) else { return Ok(()) };
        if *length >= MAX_STREAM_BYTES {
            return Ok(());
        }
        let mut line = format!("{}\n", entry.line);
        *length += line.len() as u64;
        if *length >= MAX_STREAM_BYTES {
            line += "[emberbox] this log is full: what follows is not kept\n";
        }
        file.write_all(line.as_bytes())
    }
}

fn directories(of: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(of).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// File systems allow 255 bytes; the service model allows names of 512 characters.
const MAX_COMPONENT: usize = 200;

/// A name as one component of a path: everything but letters, digits, `-` and `_` as `%XX`, and the end of a long one as its digest.
pub(crate) fn encode(name: &str) -> String {
    let whole = encode_all(name);
    match whole.len() {
        0..=MAX_COMPONENT => whole,
        _ => format!("{}~{:016x}", &whole[..MAX_COMPONENT - 17], digest(name)),
    }
}

/// FNV-1a: tells names apart, and is the same in every version.
fn digest(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn encode_all(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.bytes().fold(String::new(), |text, byte| match plain(byte) {
        true => text + char::from(byte).encode_utf8(&mut [0; 4]),
        false => text + &format!("%{byte:02X}"),
    })
}

/// Undoes [`encode`].
pub(crate) fn decode(component: &str) -> String {
    let mut bytes = Vec::with_capacity(component.len());
    let mut rest = component.as_bytes();
    while let [first, after @ ..] = rest {
        let coded = (*first == b'%').then(|| after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()));
        match coded.flatten() {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The names below a directory, decoded and sorted.
pub(crate) fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let mut names: Vec<String> = entries.iter().map(|entry| decode(&entry.file_name().to_string_lossy())).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn no_name_is_a_path_and_each_comes_back() {
        for name in ["/aws/lambda-microvms/x", "..", ".", "a%2Fb", "#é"] {
            let component = encode(name);
            assert!(!component.contains(['/', '.']), "{component}");
            assert_eq!(decode(&component), name);
        }
    }

    #[test]
    fn long_names_fit_a_file_system_and_stay_apart() {
        let (one, other) = ("/x".repeat(256), "/x".repeat(255) + "/y");
        assert!(encode(&one).len() <= 255);
        assert_ne!(encode(&one), encode(&other));
    }

    #[test]
    fn old_streams_go_and_their_groups_with_them() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer { root: directory.path().to_path_buf(), keep: Duration::from_secs(100), open: HashMap::new() };
        for (group, stream) in [("old", "s"), ("mixed", "old"), ("mixed", "new")] {
            let account = emberbox_wire::ids::AccountId("1".into());
            let (group, stream) = (group.to_owned(), stream.to_owned());
            writer.write(&LogEntry { account, group, stream, at: emberbox_store::UnixMillis(0), line: "x".into() }).unwrap();
        }
        let now = SystemTime::now();
        let new = File::options().append(true).open(directory.path().join("1/mixed/new")).unwrap();
        new.set_modified(now + Duration::from_secs(90)).unwrap();
        writer.reap(now + Duration::from_secs(120));
        assert_eq!(names(&directory.path().join("1")).unwrap(), ["mixed"]);
        assert_eq!(names(&directory.path().join("1/mixed")).unwrap(), ["new"]);
    }

    #[test]
    fn a_stream_has_a_largest_size() {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer { root: directory.path().to_path_buf(), keep: Duration::ZERO, open: HashMap::new() };
        let account = emberbox_wire::ids::AccountId("1".into());
        let line = "x".repeat(1024 * 1024);
        let entry = |line: &str| LogEntry {
            account: account.clone(),
            group: "g".into(),
            stream: "s".into(),
            at: emberbox_store::UnixMillis(0),
            line: line.into(),
        };
        (0..40).for_each(|_| writer.write(&entry(&line)).unwrap());
        let length = std::fs::metadata(directory.path().join("1/g/s")).unwrap().len();
        assert!(length < MAX_STREAM_BYTES + 2 * 1024 * 1024, "{length}");
    }
}
