//! One end of a process's stdout or stderr, read as lines.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use crate::logs::LineSplitter;

/// How long a line may stay unfinished before it is passed on as it is: a prompt, a progress bar.
const PARTIAL_LINE: Duration = Duration::from_millis(200);
const CHUNK_BYTES: usize = 16 * 1024;

pub(crate) struct Output {
    pipe: Rc<pipe::Receiver>,
    splitter: LineSplitter,
}

/// Tells whether an [`Output`] has been read up to now.
pub(crate) struct Backlog(Rc<pipe::Receiver>);

impl Backlog {
    pub(crate) fn is_empty(&self) -> bool {
        let mut interest = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut interest, PollTimeout::ZERO).is_ok() && !interest[0].any().unwrap_or(false)
    }
}

/// A pipe: the end to read and the end for the process.
pub(crate) fn open() -> Result<(Output, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("making a pipe")?;
    // Makes this end alone non-blocking: the two have flags of their own, and applications expect a blocking stdout.
    let pipe = Rc::new(pipe::Receiver::from_owned_fd(reader).context("watching a pipe")?);
    Ok((Output { pipe, splitter: LineSplitter::default() }, writer))
}

impl Output {
    pub(crate) fn backlog(&self) -> Backlog {
        Backlog(self.pipe.clone())
    }

    /// The next lines; `None` when the last writer is gone. Yields after every chunk, so that a flood starves nobody.
    pub(crate) async fn next_lines(&mut self) -> Option<Vec<String>> {
        loop {
            if self.splitter.has_partial() && timeout(PARTIAL_LINE, self.pipe.readable()).await.is_err() {
                return Some(self.splitter.flush().into_iter().collect());
            }
            let mut chunk = [0; CHUNK_BYTES];
            self.pipe.readable().await.ok()?;
            match self.pipe.try_read(&mut chunk) {
                Ok(0) => return self.splitter.flush().map(|line| vec![line]),
                Ok(count) => {
                    let lines = self.splitter.feed(&chunk[..count]);
                    tokio::task::yield_now().await;
                    if !lines.is_empty() {
                        return Some(lines);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }
}
