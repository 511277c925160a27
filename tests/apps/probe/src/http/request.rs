//! The head of a request: its line and its headers.

use std::io::{self, BufRead, Read};

/// Far above what any client of the tests sends.
const MAX_HEAD_BYTES: u64 = 64 * 1024;

pub(crate) struct Request {
    pub(crate) method: String,
    /// As received, query included.
    pub(crate) target: String,
    /// The target's path, percent-decoded.
    pub(crate) path: String,
    /// The query's members, decoded, in their order.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) version: String,
    /// As received: order, case and repetitions.
    pub(crate) headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub(crate) enum HeadError {
    /// The connection broke.
    Io(io::Error),
    /// Not HTTP/1.1, or too long.
    Malformed(&'static str),
}

impl From<io::Error> for HeadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Request {
    /// The next request of a connection; `None` when the peer closed it in between.
    pub(crate) fn read(connection: &mut impl BufRead) -> Result<Option<Self>, HeadError> {
        let mut head = connection.take(MAX_HEAD_BYTES);
        let first = read_line(&mut head)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut parts = first.trim_end().split(' ');
        let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(HeadError::Malformed("the request line"));
        };
        if !version.starts_with("HTTP/1.") {
            return Err(HeadError::Malformed("the version"));
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Ok(Some(Self {
            method: method.to_owned(),
            target: target.to_owned(),
            path: decode(path, false),
            query: parse_query(query),
            version: version.to_owned(),
            headers: read_headers(&mut head)?,
        }))
    }

    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Whether a header that is a list of words holds `word`.
    pub(crate) fn header_has(&self, name: &str, word: &str) -> bool {
        self.header(name).is_some_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
    }

    pub(crate) fn argument(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A number of the query; `default` when absent or not a number.
    pub(crate) fn number(&self, name: &str, default: u64) -> u64 {
        self.argument(name).and_then(|value| value.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn keeps_connection(&self) -> bool {
        self.version == "HTTP/1.1" && !self.header_has("connection", "close")
    }
}

/// A line with its end; empty at the end of the connection.
fn read_line(head: &mut impl BufRead) -> Result<String, HeadError> {
    let mut line = Vec::new();
    head.read_until(b'\n', &mut line)?;
    if !line.is_empty() && !line.ends_with(b"\n") {
        return Err(HeadError::Malformed("the head ends early or is too long"));
    }
    String::from_utf8(line).map_err(|_| HeadError::Malformed("the head is not text"))
}

fn read_headers(head: &mut impl BufRead) -> Result<Vec<(String, String)>, HeadError> {
    let mut headers = Vec::new();
    loop {
        let line = read_line(head)?;
        if line.is_empty() {
            return Err(HeadError::Malformed("the head ends early or is too long"));
        }
        let line = line.trim_end();
        if line.is_empty() {
            return Ok(headers);
        }
        let (name, value) = line.split_once(':').ok_or(HeadError::Malformed("a header has no colon"))?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn parse_query(query: &str) -> Vec<(String, String)> {
    let members = query.split('&').filter(|member| !member.is_empty());
    members.map(|member| member.split_once('=').unwrap_or((member, ""))).map(|(k, v)| (decode(k, true), decode(v, true))).collect()
}

/// Percent-decoding; what is not an escape stays as it is.
fn decode(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escape = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, escape.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(value)) => {
                decoded.push(value);
                at += 2;
            }
            (b'+', _) if plus_is_space => decoded.push(b' '),
            _ => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Option<Request>, HeadError> {
        Request::read(&mut head.as_bytes())
    }

    #[test]
    fn a_request_with_query_and_headers() {
        let request = read("GET /connect?host=a%2Eb&port=80&x+y HTTP/1.1\r\nHost: localhost:8080\r\nX-A: 1\r\nx-a: 2\r\n\r\n");
        let request = request.unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/connect"));
        assert_eq!(request.argument("host"), Some("a.b"));
        assert_eq!(request.number("port", 1), 80);
        assert_eq!(request.number("absent", 5), 5);
        assert_eq!(request.argument("x y"), Some(""));
        assert_eq!(request.header("x-a"), Some("1"));
        assert_eq!(request.headers.len(), 3);
    }

    #[test]
    fn only_the_head_is_consumed() {
        let mut connection = "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi".as_bytes();
        Request::read(&mut connection).unwrap().unwrap();
        assert_eq!(connection, b"hi");
    }

    #[test]
    fn a_closed_connection_is_no_error() {
        assert!(read("").unwrap().is_none());
    }

    #[test]
    fn malformed_heads() {
        for head in ["GET /\r\n\r\n", "GET / HTTP/2\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET / HTTP/1.1\r\n", "GET / HT"] {
            assert!(matches!(read(head), Err(HeadError::Malformed(_))), "{head:?}");
        }
        let endless = format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(70_000));
        assert!(matches!(read(&endless), Err(HeadError::Malformed(_))));
    }

    #[test]
    fn who_keeps_the_connection() {
        let keeps = |head: &str| read(head).unwrap().unwrap().keeps_connection();
        assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    }

    #[test]
    fn decoding_keeps_what_is_no_escape() {
        assert_eq!(decode("100%", false), "100%");
        assert_eq!(decode("%zz%41+", false), "%zzA+");
        assert_eq!(decode("%C3%A9", true), "\u{e9}");
    }
}
