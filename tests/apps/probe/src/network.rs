//! What the guest can reach.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::http::Request;
use crate::json::Json;
use crate::server::Answer;
use crate::system::random_bytes;

const DEFAULT_TIMEOUT_MS: u64 = 2000;
const DNS_PORT: u16 = 53;
const HEADER_BYTES: usize = 12;
const TYPE_A: u16 = 1;
const CLASS_IN: u16 = 1;

pub(crate) fn connect(request: &Request) -> Answer {
    attempt(request, |address, timeout| TcpStream::connect_timeout(&address, timeout).map(|_| "ok"))
}

/// Sends a datagram and waits for one back.
pub(crate) fn udp(request: &Request) -> Answer {
    attempt(request, |address, timeout| {
        let socket = udp_socket(address, timeout)?;
        socket.send(b"probe")?;
        socket.recv(&mut [0; 2048]).map(|_| "ok")
    })
}

/// `result` is `ok` or says how it failed; `ms` how long that took.
fn attempt(request: &Request, attempt: impl FnOnce(SocketAddr, Duration) -> io::Result<&'static str>) -> Answer {
    let timeout = timeout(request);
    let port = u16::try_from(request.number("port", 0)).unwrap_or_default();
    let host = request.argument("host").unwrap_or_default();
    let start = Instant::now();
    let outcome = address_of(host, timeout).and_then(|address| attempt(SocketAddr::new(address, port), timeout));
    Answer::json([
        ("result", outcome.as_ref().map_or_else(|error| kind(error), |ok| *ok).into()),
        ("error", outcome.err().map(|error| error.to_string()).into()),
        ("ms", Json::Float(start.elapsed().as_secs_f64() * 1000.0)),
    ])
}

fn kind(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refused",
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "timeout",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "unreachable",
        io::ErrorKind::PermissionDenied => "forbidden",
        io::ErrorKind::NotFound => "unresolved",
        _ => "error",
    }
}

/// `?name=` and, instead of the system's nameserver, `?server=`.
pub(crate) fn resolve(request: &Request) -> Answer {
    let name = request.argument("name").unwrap_or_default();
    let server = request.argument("server").map_or_else(nameserver, |text| text.parse().ok());
    let answer = server.ok_or_else(no_nameserver).and_then(|server| query(name, server, timeout(request)));
    let (result, answer, error) = match answer {
        Ok(answer) => ("ok", Some(answer), None),
        Err(error) => (kind(&error), None, Some(error.to_string())),
    };
    Answer::json([
        ("result", result.into()),
        ("address", answer.as_ref().and_then(|answer| answer.address).map(|address| address.to_string()).into()),
        ("rcode", answer.map(|answer| u64::from(answer.rcode)).into()),
        ("server", server.map(|address| address.to_string()).into()),
        ("error", error.into()),
    ])
}

/// The first nameserver of `/etc/resolv.conf`.
pub(crate) fn nameserver() -> Option<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").ok()?;
    text.lines().find_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
}

fn no_nameserver() -> io::Error {
    io::Error::other("no nameserver in /etc/resolv.conf")
}

fn timeout(request: &Request) -> Duration {
    Duration::from_millis(request.number("timeout_ms", DEFAULT_TIMEOUT_MS).max(1))
}

fn address_of(host: &str, timeout: Duration) -> io::Result<IpAddr> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let answer = query(host, nameserver().ok_or_else(no_nameserver)?, timeout)?;
    answer.address.map(IpAddr::V4).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))
}

fn udp_socket(peer: SocketAddr, timeout: Duration) -> io::Result<UdpSocket> {
    let any: SocketAddr = if peer.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.connect(peer)?;
    Ok(socket)
}

#[derive(Debug, PartialEq)]
struct DnsAnswer {
    rcode: u8,
    /// The first A record.
    address: Option<Ipv4Addr>,
}

fn query(name: &str, server: IpAddr, timeout: Duration) -> io::Result<DnsAnswer> {
    let id = random_bytes::<2>()?;
    let socket = udp_socket(SocketAddr::new(server, DNS_PORT), timeout)?;
    socket.send(&dns_question(id, name).ok_or_else(|| io::Error::other("not a domain name"))?)?;
    let mut message = [0; 4096];
    let length = socket.recv(&mut message)?;
    parse_dns_answer(id, &message[..length]).ok_or_else(|| io::Error::other("not an answer to the question"))
}

fn dns_question(id: [u8; 2], name: &str) -> Option<Vec<u8>> {
    // Recursion desired, one question.
    let mut message = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        message.push(length);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&TYPE_A.to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
    Some(message)
}

fn parse_dns_answer(id: [u8; 2], message: &[u8]) -> Option<DnsAnswer> {
    let is_answer = message.get(..2)? == id && message.get(2)? & 0x80 != 0;
    let (questions, answers) = is_answer.then_some((number(message, 4)?, number(message, 6)?))?;
    let mut at = HEADER_BYTES;
    for _ in 0..questions {
        at = end_of_name(message, at)? + 4;
    }
    let mut address = None;
    for _ in 0..answers {
        // After the name: type, class, time to live (4 bytes), length, data.
        let fields = end_of_name(message, at)?;
        let data = message.get(fields + 10..fields + 10 + usize::from(number(message, fields + 8)?))?;
        if address.is_none() && number(message, fields)? == TYPE_A {
            address = <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
        }
        at = fields + 10 + data.len();
    }
    Some(DnsAnswer { rcode: message.get(3)? & 0x0f, address })
}

fn number(message: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?))
}

/// A name is labels up to an empty one, or up to a pointer to the rest.
fn end_of_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: [u8; 2] = [7, 8];

    fn answer(rcode: u8, records: &[&[u8]]) -> Vec<u8> {
        let mut message = dns_question(ID, "a.example").unwrap();
        message[2] |= 0x80;
        message[3] = rcode;
        message[7] = u8::try_from(records.len()).unwrap();
        records.iter().for_each(|record| message.extend_from_slice(record));
        message
    }

    #[test]
    fn the_first_address_behind_an_alias() {
        let alias = b"\xc0\x0c\0\x05\0\x01\0\0\0\x09\0\x04\x01b\xc0\x0e";
        let address = b"\xc0\x27\0\x01\0\x01\0\0\0\x09\0\x04\xc0\0\x02\x01";
        let parsed = parse_dns_answer(ID, &answer(0, &[alias, address])).unwrap();
        assert_eq!(parsed, DnsAnswer { rcode: 0, address: Some(Ipv4Addr::new(192, 0, 2, 1)) });
    }

    #[test]
    fn a_name_that_does_not_exist() {
        assert_eq!(parse_dns_answer(ID, &answer(3, &[])).unwrap(), DnsAnswer { rcode: 3, address: None });
    }

    #[test]
    fn what_is_no_answer() {
        let whole = answer(0, &[b"\xc0\x0c\0\x01\0\x01\0\0\0\x09\0\x04\xc0\0\x02\x01"]);
        assert!(parse_dns_answer([0, 0], &whole).is_none());
        for length in 0..whole.len() {
            assert!(parse_dns_answer(ID, &whole[..length]).is_none(), "{length}");
        }
    }

    #[test]
    fn names_that_cannot_be_asked_for() {
        assert!(dns_question(ID, "").is_none());
        assert!(dns_question(ID, "a..b").is_none());
        assert!(dns_question(ID, &"x".repeat(64)).is_none());
    }
}
