//! One connection: lines with the descriptors that came with them.
#![allow(unsafe_code)]

use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::message::{Answer, Call, GENERATION, MAX_LINE_BYTES};

/// More than any request has.
const MAX_DESCRIPTORS: usize = 96;
const CHUNK: usize = 4096;
/// A daemon that does not read its answer has gone wrong: it is not waited for.
const SEND_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct Channel {
    stream: UnixStream,
    line: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// What a peer has sent so far.
pub(super) enum Received {
    Call(Call, Vec<OwnedFd>),
    /// A line that is no call of ours, with the reason.
    Nonsense(String),
    /// Not a whole line yet.
    More,
    Closed,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(SEND_WITHIN))?;
        Ok(Self { stream, line: Vec::new(), descriptors: Vec::new() })
    }

    pub(super) fn fd(&self) -> &UnixStream {
        &self.stream
    }

    /// Takes what has come. Called when there is something.
    pub(super) fn receive(&mut self) -> io::Result<Received> {
        let mut chunk = [0; CHUNK];
        let length = self.receive_chunk(&mut chunk)?;
        if length == 0 {
            return Ok(Received::Closed);
        }
        self.line.extend_from_slice(&chunk[..length]);
        if self.line.len() > MAX_LINE_BYTES || self.descriptors.len() > MAX_DESCRIPTORS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request is too long"));
        }
        // One call at a time: the daemon waits for each answer.
        let Some(line) = self.line.strip_suffix(b"\n") else { return Ok(Received::More) };
        let parsed = parse(line);
        self.line.clear();
        let descriptors = std::mem::take(&mut self.descriptors);
        Ok(match parsed {
            Ok(call) => Received::Call(call, descriptors),
            Err(reason) => Received::Nonsense(reason),
        })
    }

    fn receive_chunk(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut vectors = [IoSliceMut::new(chunk)];
        let message = recvmsg::<()>(self.stream.as_raw_fd(), &mut vectors, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control {
                // SAFETY: the kernel has just made these descriptors for this process; nobody else knows their numbers.
                self.descriptors.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.flags.contains(MsgFlags::MSG_CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a request came with too many descriptors"));
        }
        Ok(message.bytes)
    }

    pub(super) fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        let mut line = serde_json::to_vec(answer)?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }
}

/// A call of this generation, or why it is none.
pub(super) fn parse(line: &[u8]) -> Result<Call, String> {
    #[derive(serde::Deserialize)]
    struct Generation {
        generation: u32,
    }
    match serde_json::from_slice::<Generation>(line) {
        Ok(Generation { generation: GENERATION }) => {}
        Ok(other) => return Err(format!("this monitor speaks generation {GENERATION}, not {}", other.generation)),
        Err(error) => return Err(format!("not a request: {error}")),
    }
    serde_json::from_slice(line).map_err(|error| format!("not a request: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::message::Request;
    use super::*;

    fn pair() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::new(ours).unwrap(), theirs)
    }

    #[test]
    fn a_call_may_come_in_pieces() {
        let (mut channel, mut peer) = pair();
        let mut line = serde_json::to_vec(&Call { generation: GENERATION, request: Request::Pause }).unwrap();
        line.push(b'\n');
        peer.write_all(&line[..9]).unwrap();
        assert!(matches!(channel.receive().unwrap(), Received::More));
        peer.write_all(&line[9..]).unwrap();
        assert!(matches!(channel.receive().unwrap(), Received::Call(Call { request: Request::Pause, .. }, fds) if fds.is_empty()));
        drop(peer);
        assert!(matches!(channel.receive().unwrap(), Received::Closed));
    }

    #[test]
    fn an_endless_line_is_cut_off() {
        let (mut channel, mut peer) = pair();
        let writer = std::thread::spawn(move || while peer.write_all(&[b'a'; CHUNK]).is_ok() {});
        let refused = std::iter::repeat_with(|| channel.receive()).find(Result::is_err);
        assert!(refused.is_some() && channel.line.len() <= MAX_LINE_BYTES + CHUNK);
        drop(channel);
        writer.join().unwrap();
    }

    #[test]
    fn what_is_no_call_of_this_generation_is_said_so() {
        assert!(parse(b"{}").unwrap_err().contains("not a request"));
        assert!(parse(b"\xff").is_err());
        assert!(parse(br#"{"generation":999,"request":"whatever"}"#).unwrap_err().contains("speaks generation"));
        assert!(parse(br#"{"generation":1,"request":"pause"}"#).is_ok());
        assert!(parse(br#"{"generation":1,"request":{"prepare":{"vcpus":300}}}"#).is_err());
    }
}
