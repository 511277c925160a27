//! Answers: whole ones, and heads for bodies that are written as they come.

use std::io::{self, Write};

/// Tells a client that waits for permission to send its body.
pub(crate) fn write_continue(out: &mut impl Write) -> io::Result<()> {
    out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
}

/// A whole answer, in one write.
pub(crate) fn write_answer(out: &mut impl Write, status: u16, content_type: &str, body: &[u8]) -> io::Result<()> {
    let mut answer = Vec::with_capacity(body.len() + 256);
    write_head(&mut answer, status, content_type, Some(body.len() as u64))?;
    answer.extend_from_slice(body);
    out.write_all(&answer)
}

/// The head of an answer whose body follows: with a length, or in [`Chunks`].
pub(crate) fn write_head(out: &mut impl Write, status: u16, content_type: &str, length: Option<u64>) -> io::Result<()> {
    let framing = length.map_or("Transfer-Encoding: chunked".to_owned(), |length| format!("Content-Length: {length}"));
    let reason = reason(status);
    out.write_all(format!("HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n").as_bytes())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Status",
    }
}

/// A chunked body: every write is a chunk of its own and leaves at once.
pub(crate) struct Chunks<W>(pub(crate) W);

impl<W: Write> Chunks<W> {
    /// Without it the peer sees a broken answer.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.0.write_all(b"0\r\n\r\n")
    }
}

impl<W: Write> Write for Chunks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An empty chunk would end the body.
        if !bytes.is_empty() {
            let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunk.extend_from_slice(bytes);
            chunk.extend_from_slice(b"\r\n");
            self.0.write_all(&chunk)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_answer() {
        let mut out = Vec::new();
        write_answer(&mut out, 404, "text/plain", b"no").unwrap();
        assert_eq!(out, b"HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno");
    }

    #[test]
    fn an_answer_in_chunks() {
        let mut out = Vec::new();
        write_head(&mut out, 200, "text/plain", None).unwrap();
        let mut chunks = Chunks(&mut out);
        chunks.write_all(b"hello world!").unwrap();
        chunks.write_all(b"").unwrap();
        chunks.finish().unwrap();
        let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nhello world!\r\n0\r\n\r\n";
        assert_eq!(out, expected.as_bytes());
    }
}
