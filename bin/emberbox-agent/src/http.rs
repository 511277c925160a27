//! Just enough of an HTTP/1.1 client for lifecycle hooks: one POST, one answer, one connection.
//!
//! Hooks are what a launch waits for, and on a machine without hardware virtualization the cost of code is the first time it
//! runs. This is a hundred lines instead of a library's ten thousand. The application is not trusted: every size is bounded
//! here, every wait by the caller.

use std::io;

use emberbox_agent_protocol::Hook;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::{logs, loopback};

/// Of all headers together; common servers' own limit.
const MAX_HEAD_BYTES: u64 = 16 * 1024;
/// Kept of the answer's text; the protocol's limit.
const MAX_BODY_BYTES: u64 = 1024;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

/// Sends the hook and reads its answer.
///
/// # Errors
/// `ConnectionRefused` when nothing listens; `InvalidData` when the answer is not HTTP; others when the connection broke.
pub(crate) async fn post(hook: &Hook) -> io::Result<Answer> {
    let mut stream = loopback::connect(hook.port).await?;
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n{}",
        hook.path,
        hook.port,
        hook.body.len(),
        hook.body
    );
    stream.write_all(request.as_bytes()).await?;
    read_answer(BufReader::with_capacity(2048, stream)).await
}

#[derive(Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
}

async fn read_answer(mut reader: BufReader<impl AsyncRead + Unpin>) -> io::Result<Answer> {
    let head = loop {
        let head = read_head(&mut reader).await?;
        // 1xx announce the answer proper; 101 was not asked for and ends here like any other status.
        if !(100..200).contains(&head.status) || head.status == 101 {
            break head;
        }
    };
    // The status decides; an answer whose text breaks off is an answer.
    let mut body = Vec::new();
    let _ = read_body(&mut reader, &head.framing, &mut body).await;
    Ok(Answer { status: head.status, body: logs::cut(String::from_utf8_lossy(&body).into_owned(), MAX_BODY_BYTES as usize) })
}

async fn read_head(reader: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<Head> {
    let mut text = Vec::new();
    let mut limited = reader.take(MAX_HEAD_BYTES);
    loop {
        let start = text.len();
        limited.read_until(b'\n', &mut text).await?;
        match &text[start..] {
            b"\r\n" | b"\n" if start > 0 => return parse_head(&text).ok_or_else(|| invalid("the answer is not HTTP")),
            line if line.ends_with(b"\n") => {}
            _ if limited.limit() == 0 => return Err(invalid("the answer's headers are too large")),
            _ => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed without an answer")),
        }
    }
}

fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn parse_head(head: &[u8]) -> Option<Head> {
    let text = String::from_utf8_lossy(head);
    let mut lines = text.lines();
    let mut start = lines.next()?.split(' ');
    start.next()?.strip_prefix("HTTP/1.")?;
    let status = start.next().filter(|status| status.len() == 3)?.parse().ok()?;
    let mut framing = Framing::UntilClose;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") && value.to_ascii_lowercase().ends_with("chunked") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            framing = Framing::Length(value.parse().ok()?);
        }
    }
    if matches!(status, 100..200 | 204 | 304) {
        framing = Framing::Length(0);
    }
    Some(Head { status, framing })
}

async fn read_body(reader: &mut (impl AsyncBufReadExt + Unpin), framing: &Framing, body: &mut Vec<u8>) -> io::Result<()> {
    let length = match framing {
        Framing::Length(length) => (*length).min(MAX_BODY_BYTES),
        Framing::UntilClose => MAX_BODY_BYTES,
        Framing::Chunked => return read_chunks(reader, body).await,
    };
    reader.take(length).read_to_end(body).await.map(drop)
}

async fn read_chunks(reader: &mut (impl AsyncBufReadExt + Unpin), body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        (&mut *reader).take(MAX_BODY_BYTES).read_until(b'\n', &mut line).await?;
        let line = String::from_utf8_lossy(&line);
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk without a size"))?;
        let room = MAX_BODY_BYTES - body.len() as u64;
        (&mut *reader).take(size.min(room)).read_to_end(body).await?;
        if size == 0 || size >= room {
            return Ok(());
        }
        reader.read_until(b'\n', &mut Vec::with_capacity(2)).await?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn answer(text: &str) -> io::Result<Answer> {
        read_answer(BufReader::new(text.as_bytes())).await
    }

    #[tokio::test]
    async fn bodies_of_every_framing() {
        for text in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        ] {
            assert_eq!(answer(text).await.unwrap(), Answer { status: 200, body: "hello".into() }, "{text}");
        }
    }

    #[tokio::test]
    async fn large_answers_are_cut() {
        let long = "x".repeat(100_000);
        for text in [
            format!("HTTP/1.1 500 Oops\r\nContent-Length: 100000\r\n\r\n{long}"),
            format!("HTTP/1.1 500 Oops\r\nTransfer-Encoding: chunked\r\n\r\n186A0\r\n{long}\r\n0\r\n\r\n"),
            format!("HTTP/1.1 500 Oops\r\n\r\n{long}"),
        ] {
            assert_eq!(answer(&text).await.unwrap().body.len(), 1024);
        }
    }

    #[tokio::test]
    async fn hostile_answers_are_errors() {
        assert_eq!(answer("SSH-2.0-x\r\n\r\n").await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(answer("").await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(answer("HTTP/1.1 200 OK\r\nA: b").await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(100_000));
        assert_eq!(answer(&endless).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        let negative = "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n";
        assert_eq!(answer(negative).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
