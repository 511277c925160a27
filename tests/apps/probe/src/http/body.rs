//! The body of a request, read as it arrives.

use std::io::{self, BufRead, Read};

use super::Request;

/// Reads from a connection no further than the end of its request.
pub(crate) struct Body<'a, R> {
    connection: &'a mut R,
    /// Unread bytes of the body, or of the chunk at hand.
    remaining: u64,
    chunks: Chunking,
}

/// Where in a chunked body the reader is.
#[derive(PartialEq)]
enum Chunking {
    /// A body with a length, or none.
    Plain,
    BeforeFirst,
    Inside,
    Ended,
}

impl<'a, R: BufRead> Body<'a, R> {
    pub(crate) fn new(request: &Request, connection: &'a mut R) -> io::Result<Self> {
        if request.header_has("transfer-encoding", "chunked") {
            return Ok(Self { connection, remaining: 0, chunks: Chunking::BeforeFirst });
        }
        let length = request.header("content-length").unwrap_or("0");
        let remaining = length.parse().map_err(|_| invalid("the content length"))?;
        Ok(Self { connection, remaining, chunks: Chunking::Plain })
    }

    /// The body's length; `None` if it comes in chunks. Before the first read.
    pub(crate) fn length(&self) -> Option<u64> {
        (self.chunks == Chunking::Plain).then_some(self.remaining)
    }

    fn next_chunk(&mut self) -> io::Result<()> {
        if self.chunks == Chunking::Inside {
            self.line()?;
        }
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        self.remaining = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk's size"))?;
        self.chunks = Chunking::Inside;
        if self.remaining == 0 {
            while !self.line()?.is_empty() {}
            self.chunks = Chunking::Ended;
        }
        Ok(())
    }

    /// A line of the framing, without its end.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut *self.connection).take(8 * 1024).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.remaining == 0 && matches!(self.chunks, Chunking::BeforeFirst | Chunking::Inside) {
            self.next_chunk()?;
        }
        if self.remaining == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let wanted = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.connection.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.remaining -= count as u64;
        Ok(count)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a message, and what is left of the connection after it.
    fn read(message: &str) -> (io::Result<String>, String) {
        let mut connection = message.as_bytes();
        let request = Request::read(&mut connection).unwrap().unwrap();
        let mut text = String::new();
        let read = Body::new(&request, &mut connection).and_then(|mut body| body.read_to_string(&mut text));
        (read.map(|_| text), String::from_utf8_lossy(connection).into_owned())
    }

    #[test]
    fn a_body_with_a_length() {
        let (body, rest) = read("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhelloGET");
        assert_eq!((body.unwrap().as_str(), rest.as_str()), ("hello", "GET"));
    }

    #[test]
    fn a_body_in_chunks() {
        let (body, rest) =
            read("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n, world...\r\n0\r\nT: 1\r\n\r\nGET");
        assert_eq!((body.unwrap().as_str(), rest.as_str()), ("hello, world...", "GET"));
    }

    #[test]
    fn no_body() {
        let (body, rest) = read("GET / HTTP/1.1\r\n\r\nGET");
        assert_eq!((body.unwrap().as_str(), rest.as_str()), ("", "GET"));
    }

    #[test]
    fn a_body_that_ends_early_is_an_error() {
        for message in
            ["Content-Length: 9\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhel", "Transfer-Encoding: chunked\r\n\r\n"]
        {
            assert!(read(&format!("POST / HTTP/1.1\r\n{message}")).0.is_err(), "{message:?}");
        }
    }

    #[test]
    fn malformed_framing_is_an_error() {
        for message in ["Content-Length: -1\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nxyz\r\n"] {
            assert!(read(&format!("POST / HTTP/1.1\r\n{message}")).0.is_err(), "{message:?}");
        }
    }
}
