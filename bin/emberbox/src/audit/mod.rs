//! The audit log as files of JSON lines: `audit.jsonl` is written to, `audit-<when it was full>.jsonl` are older ones.
//!
//! Owns the queue between the daemon and the disk, and how much of the disk is used. Never blocks who reports an event: when the disk cannot keep up,
//! events are lost, counted, and their number becomes an event of its own.

mod command;
mod writer;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::time::{Duration, SystemTime};

use emberbox_wire::audit::{AuditEvent, AuditLog};

pub(crate) use command::run;
use writer::Writer;

use crate::json_lines::{Files, Rotation};

/// Name of its files.
pub(crate) const NAME: &str = "audit";

/// Events that wait for the disk: some seconds of a busy API, a few tens of MiB at worst.
const QUEUE: usize = 8192;

enum Message {
    Event(Box<AuditEvent>, SystemTime),
    /// Answered when everything before it is in the file.
    Flush(SyncSender<()>),
}

/// Writes on a thread of its own.
pub(crate) struct AuditFiles {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl AuditFiles {
    pub(crate) fn start(directory: &Path, rotation: &Rotation) -> io::Result<Self> {
        let files = Files::open(directory, NAME, rotation)?;
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer::new(files, lost.clone());
        std::thread::Builder::new().name("audit-log".into()).spawn(move || writer.write_all(&messages))?;
        Ok(Self { queue, lost })
    }

    /// Waits until what has been reported so far is in the file, or for `patience`.
    pub(crate) fn flush(&self, patience: Duration) {
        let (done, written) = mpsc::sync_channel(1);
        if self.queue.send(Message::Flush(done)).is_ok() && written.recv_timeout(patience).is_err() {
            tracing::warn!("the last events of the audit log may not be on the disk");
        }
    }
}

impl AuditLog for AuditFiles {
    fn event(&self, event: AuditEvent) {
        if self.queue.try_send(Message::Event(Box::new(event), SystemTime::now())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use emberbox_wire::audit::AuditResource;
    use emberbox_wire::ids::AccountId;
    use serde_json::{Value, json};

    pub(super) fn event(name: &str) -> AuditEvent {
        let resource = AuditResource { arn: "arn".into(), kind: "AWS::Lambda::Microvm" };
        AuditEvent::by_the_service(name, "us-east-1", &AccountId("123456789012".into()), resource, json!({}))
    }

    #[test]
    fn events_are_lines_in_their_order() {
        let directory = tempfile::tempdir().unwrap();
        let log = AuditFiles::start(directory.path(), &Rotation::default()).unwrap();
        (0..100).for_each(|n| log.event(event(&format!("Event{n}"))));
        log.flush(Duration::from_secs(10));
        let text = std::fs::read_to_string(directory.path().join("audit.jsonl")).unwrap();
        let names: Vec<Value> = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["eventName"].clone()).collect();
        assert_eq!(names, (0..100).map(|n| json!(format!("Event{n}"))).collect::<Vec<_>>());
        let ids: std::collections::HashSet<_> =
            text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["eventID"].to_string()).collect();
        assert_eq!(ids.len(), 100);
    }

    #[test]
    fn a_full_queue_loses_and_says_how_many() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::open(directory.path(), NAME, &Rotation::default()).unwrap();
        let (queue, messages) = mpsc::sync_channel(2);
        let lost = Arc::new(AtomicU64::new(0));
        let log = AuditFiles { queue, lost: lost.clone() };
        (0..7).for_each(|n| log.event(event(&format!("Event{n}"))));
        drop(log);
        Writer::new(files, lost).write_all(&messages);
        let text = std::fs::read_to_string(directory.path().join("audit.jsonl")).unwrap();
        let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let losses: Vec<_> = records.iter().filter(|record| record["eventName"] == "AuditEventsLost").collect();
        assert_eq!((records.len(), losses.len(), &losses[0]["serviceEventDetails"]["count"]), (3, 1, &json!(5)));
    }
}
