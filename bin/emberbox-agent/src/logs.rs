//! The application's output in memory: lines with sequence numbers, the newest kept, the oldest given up.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::SystemTime;

use emberbox_agent_protocol::{LogLine, LogStream};
use tokio::sync::Notify;

/// Text kept for followers that come late or read slowly.
const CAPACITY_BYTES: usize = 1024 * 1024;
/// What a line costs beside its text.
const LINE_OVERHEAD_BYTES: usize = size_of::<LogLine>() + 16;
/// A line of the protocol.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Cuts a stream of bytes into lines. A line longer than the protocol's is continued in the next.
#[derive(Default)]
pub(crate) struct LineSplitter {
    partial: Vec<u8>,
}

impl LineSplitter {
    /// Returns the lines that `bytes` completed.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(MAX_TEXT_BYTES) {
                if self.partial.len() + part.len() > MAX_TEXT_BYTES + 1 {
                    lines.extend(self.flush());
                }
                self.partial.extend_from_slice(part);
            }
            if piece.ends_with(b"\n") {
                lines.push(take_line(&mut self.partial));
            }
        }
        lines
    }

    /// Returns what came since the last line end.
    pub(crate) fn flush(&mut self) -> Option<String> {
        self.has_partial().then(|| take_line(&mut self.partial))
    }

    pub(crate) fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }
}

fn take_line(bytes: &mut Vec<u8>) -> String {
    let bytes = std::mem::take(bytes);
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    cut(String::from_utf8_lossy(line).into_owned(), MAX_TEXT_BYTES)
}

/// Cuts `text` at the last character that ends within `limit` bytes.
pub(crate) fn cut(mut text: String, limit: usize) -> String {
    let end = (0..=limit.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or(0));
    text
}

/// A line made now.
pub(crate) fn line(sequence: u64, stream: LogStream, text: String) -> LogLine {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    LogLine { sequence, unix_ms: now.as_millis() as u64, stream, text }
}

/// The ring. Writers never wait: a flood displaces its own past.
#[derive(Default)]
pub(crate) struct LogBuffer {
    ring: RefCell<Ring>,
    pub(crate) grown: Notify,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last_sequence: u64,
}

impl LogBuffer {
    pub(crate) fn push(&self, stream: LogStream, text: String) {
        self.ring.borrow_mut().push(stream, text);
        self.grown.notify_waiters();
    }

    /// Up to `limit` lines after sequence number `after`. Where lines are gone, the first one says how many.
    pub(crate) fn after(&self, after: u64, limit: usize) -> Vec<LogLine> {
        self.ring.borrow().after(after, limit)
    }
}

impl Ring {
    fn push(&mut self, stream: LogStream, text: String) {
        self.last_sequence += 1;
        self.bytes += text.len() + LINE_OVERHEAD_BYTES;
        self.lines.push_back(line(self.last_sequence, stream, text));
        while self.bytes > CAPACITY_BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.text.len() + LINE_OVERHEAD_BYTES;
        }
    }

    fn after(&self, after: u64, limit: usize) -> Vec<LogLine> {
        let first = self.lines.front().map_or(self.last_sequence + 1, |line| line.sequence);
        let skipped = (after + 1).saturating_sub(first).min(self.lines.len() as u64) as usize;
        let mut found = Vec::new();
        if after + 1 < first {
            let lost = first - after - 1;
            let text = format!("emberbox: {lost} lines of output were lost: they came faster than they were read");
            found.push(line(first - 1, LogStream::Stderr, text));
        }
        found.extend(self.lines.range(skipped..).take(limit).cloned());
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_across_reads() {
        let mut splitter = LineSplitter::default();
        assert_eq!(splitter.feed(b"one\ntw"), ["one"]);
        assert_eq!(splitter.feed(b"o\r\n\nthree"), ["two", ""]);
        assert_eq!(splitter.flush().as_deref(), Some("three"));
        assert_eq!(splitter.flush(), None);
    }

    #[test]
    fn a_long_line_is_continued_and_no_text_is_lost() {
        let mut splitter = LineSplitter::default();
        let mut lines = splitter.feed(&vec![b'x'; MAX_TEXT_BYTES * 2 + 10]);
        lines.extend(splitter.feed(b"\n"));
        assert!(lines.iter().all(|line| line.len() <= MAX_TEXT_BYTES));
        assert_eq!(lines.iter().map(String::len).sum::<usize>(), MAX_TEXT_BYTES * 2 + 10);
    }

    #[test]
    fn invalid_text_is_replaced_and_bounded() {
        let mut splitter = LineSplitter::default();
        assert_eq!(splitter.feed(b"a\xffb\n"), ["a\u{fffd}b"]);
        let lines = splitter.feed(&[vec![0xff; MAX_TEXT_BYTES], vec![b'\n']].concat());
        assert!(lines.iter().all(|line| line.len() <= MAX_TEXT_BYTES));
    }

    #[test]
    fn the_ring_is_bounded_and_says_what_it_lost() {
        let buffer = LogBuffer::default();
        for number in 0..100_000 {
            buffer.push(LogStream::Stdout, format!("line {number}"));
        }
        assert!(buffer.ring.borrow().bytes <= CAPACITY_BYTES);
        let lines = buffer.after(10, 2);
        assert!(lines[0].text.contains("lines of output were lost"));
        assert_eq!(lines[1].sequence, lines[0].sequence + 1);
        assert_eq!(lines[1].text, format!("line {}", lines[1].sequence - 1));
        assert_eq!(buffer.after(99_999, 10).len(), 1);
        assert!(buffer.after(100_000, 10).is_empty());
        assert!(buffer.after(200_000, 10).is_empty());
    }

    #[test]
    fn a_follower_reads_from_the_start() {
        let buffer = LogBuffer::default();
        assert!(buffer.after(0, 10).is_empty());
        buffer.push(LogStream::Stdout, "a".into());
        buffer.push(LogStream::Stderr, "b".into());
        let sequences: Vec<u64> = buffer.after(0, 10).iter().map(|line| line.sequence).collect();
        assert_eq!(sequences, [1, 2]);
    }
}
