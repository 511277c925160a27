//! The event stream as files of JSON lines. Owns the queue between the daemon and the disk; never blocks who reports an event.

mod command;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::time::Duration;

use emberbox_control::events::{Event, EventSink};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(crate) use command::run;

use crate::json_lines::{Files, Rotation};

/// Name of its files.
const NAME: &str = "events";
/// Events that wait for the disk: some seconds of a busy daemon.
const QUEUE: usize = 8192;

enum Message {
    Event(Box<Event>),
    /// Answered when everything before it is in the file.
    Flush(SyncSender<()>),
}

/// Writes on a thread of its own.
pub(crate) struct EventFiles {
    queue: SyncSender<Message>,
    lost: AtomicU64,
}

impl EventFiles {
    pub(crate) fn start(directory: &Path, rotation: &Rotation) -> io::Result<Self> {
        let mut files = Files::open(directory, NAME, rotation)?;
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let write = move || {
            for message in messages {
                if let Err(error) = take(&mut files, message) {
                    tracing::warn!(%error, "an event could not be written");
                }
            }
        };
        std::thread::Builder::new().name("events".into()).spawn(write)?;
        Ok(Self { queue, lost: AtomicU64::new(0) })
    }

    /// Waits until what has been reported so far is in the file, or for `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() && written.recv_timeout(patience).is_err() {
            tracing::warn!("the last events may not be on the disk");
        }
    }
}

impl EventSink for EventFiles {
    fn emit(&self, event: Event) {
        if self.queue.try_send(Message::Event(Box::new(event))).is_err() && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("events come faster than the disk takes them: some are lost");
        }
    }
}

/// Each event is in the file at once: who follows waits for it, and a daemon that is killed has said what it did.
fn take(files: &mut Files, message: Message) -> io::Result<()> {
    match message {
        Message::Event(event) => files.append(&line(&event)?)?,
        // Who asked may have stopped waiting.
        Message::Flush(done) => drop(done.try_send(())),
    }
    files.flush()
}

fn line(event: &Event) -> io::Result<String> {
    let at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(event.at.0) * 1_000_000).map_err(io::Error::other)?;
    let mut members = serde_json::Map::from_iter([("time".to_owned(), Value::from(at.format(&Rfc3339).map_err(io::Error::other)?))]);
    if let Value::Object(event) = serde_json::to_value(event)? {
        members.extend(event);
    }
    Ok(Value::Object(members).to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use emberbox_control::events::Happening;
    use emberbox_store::UnixMillis;

    #[test]
    fn events_are_lines() {
        let directory = tempfile::tempdir().unwrap();
        let events = EventFiles::start(directory.path(), &Rotation::default()).unwrap();
        events.emit(Event { at: UnixMillis(1_750_000_000_250), account: None, what: Happening::Stopping });
        events.flush(Duration::from_secs(10));
        let text = std::fs::read_to_string(directory.path().join("events.jsonl")).unwrap();
        assert_eq!(text, "{\"event\":\"stopping\",\"time\":\"2025-06-15T15:06:40.25Z\"}\n");
    }
}
