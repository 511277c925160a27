//! The agent's end of one connection from the host: a line in, lines out.

use std::borrow::Borrow;
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use emberbox_agent_protocol::{Call, GENERATION, MAX_LINE_BYTES, Reply};
use nix::sys::socket::sockopt::ReceiveTimestampns;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt};
use nix::sys::time::TimeSpec;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// The host sends its line as soon as it is connected.
const FIRST_LINE: Duration = Duration::from_secs(10);
/// How long the host is given to close first: the side that closes first keeps the port in TIME_WAIT, and what the guest keeps
/// is kept in snapshots, where it would meet the ports of hosts to come.
const FAREWELL: Duration = Duration::from_secs(2);

pub(crate) struct Link {
    stream: BufReader<TcpStream>,
}

/// When the kernel got a request, by the guest's wall clock then: the agent may be reached much later, in a guest that has just been restored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival(SystemTime);

impl Arrival {
    /// How long ago it was. To be asked before the clock is set.
    pub(crate) fn waited(self) -> Duration {
        SystemTime::now().duration_since(self.0).unwrap_or_default()
    }
}

/// Makes the connections of a listener keep the time at which data arrived.
pub(crate) fn note_arrivals(listener: &TcpListener) -> io::Result<()> {
    Ok(setsockopt(listener, ReceiveTimestampns, &true)?)
}

impl Link {
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(16 * 1024, stream) })
    }

    pub(crate) async fn read_call(&mut self) -> Result<(Call, Arrival)> {
        let arrival = timeout(FIRST_LINE, self.arrival()).await.context("no request came")??;
        let mut line = Vec::new();
        let mut limited = (&mut self.stream).take(MAX_LINE_BYTES as u64);
        timeout(FIRST_LINE, limited.read_until(b'\n', &mut line)).await.context("no request came")??;
        ensure!(line.ends_with(b"\n"), "the request is not one line of at most {MAX_LINE_BYTES} bytes");
        let call: Call = serde_json::from_slice(&line).context("the request is not understood")?;
        ensure!(call.generation == GENERATION, "the request is of protocol generation {}; this agent speaks {GENERATION}", call.generation);
        Ok((call, arrival))
    }

    /// Looks at the first byte without taking it. Without a stamp of the kernel's it has arrived now.
    async fn arrival(&self) -> io::Result<Arrival> {
        let stream = self.stream.get_ref();
        let look = || {
            let mut byte = [0; 1];
            let mut room = [IoSliceMut::new(&mut byte)];
            let mut control = nix::cmsg_space!(TimeSpec);
            let message = recvmsg::<()>(stream.as_raw_fd(), &mut room, Some(&mut control), MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT)?;
            let stamp = message.cmsgs()?.find_map(|found| match found {
                ControlMessageOwned::ScmTimestampns(time) => Some(UNIX_EPOCH + Duration::from(time)),
                _ => None,
            });
            Ok(Arrival(stamp.unwrap_or_else(SystemTime::now)))
        };
        stream.async_io(Interest::READABLE, look).await
    }

    pub(crate) async fn send(&mut self, reply: &Reply) -> io::Result<()> {
        self.send_all([reply]).await
    }

    /// Sends replies together: packets are what costs.
    pub(crate) async fn send_all(&mut self, replies: impl IntoIterator<Item = impl Borrow<Reply>>) -> io::Result<()> {
        let mut lines = Vec::new();
        for reply in replies {
            serde_json::to_writer(&mut lines, reply.borrow())?;
            lines.push(b'\n');
        }
        self.stream.write_all(&lines).await
    }

    /// Returns when the host has hung up, or sent what the protocol does not know: both end the exchange.
    pub(crate) async fn hung_up(&mut self) {
        let _ = self.stream.fill_buf().await;
    }

    /// Waits for the host to close, so that the guest need not be first.
    pub(crate) async fn farewell(mut self) {
        let _ = timeout(FAREWELL, self.hung_up()).await;
    }

    /// The raw bytes, what was read ahead included.
    pub(crate) fn into_stream(self) -> BufReader<TcpStream> {
        self.stream
    }
}
