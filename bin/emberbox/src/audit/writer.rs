//! From events to lines of the audit log, and how many were lost on the way.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::SystemTime;

use emberbox_wire::audit::{Actor, AuditEvent};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::Message;
use crate::json_lines::Files;

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
        match self.files.flush() {
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
