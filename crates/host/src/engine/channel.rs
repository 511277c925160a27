//! Control sockets of virtual machine processes: where they are, and how a descriptor is handed over.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// Binds the socket before its process starts, so that commands can be sent at once.
pub(super) fn listen(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    match std::fs::remove_file(directory.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let directory = File::open(directory)?;
    Ok(UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?.into())
}

/// Connects to the socket in `directory`. Its process need not have come up: what is sent waits for it.
pub(super) async fn connect(directory: &Path, name: &str) -> io::Result<UnixStream> {
    // Through the directory's descriptor: the path itself may be longer than a socket address can be.
    let directory = File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())).await
}

/// Sends one line with descriptors.
pub(super) async fn send(stream: &UnixStream, line: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let send = || {
        let data = [io::IoSlice::new(line)];
        let control = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &control[..0] } else { &control[..] };
        Ok(sendmsg::<()>(stream.as_raw_fd(), &data, control, MsgFlags::empty(), None)?)
    };
    // A line is shorter than an empty socket's buffer: it goes whole or not at all.
    match stream.async_io(Interest::WRITABLE, send).await? {
        sent if sent == line.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
