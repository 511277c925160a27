//! Client of the agent in the guest. The guest is hostile: lines are bounded, waits have deadlines, and an answer of the wrong kind is an error.
//!
//! An exchange ends with its machine's process, not with the guest's silence: on a busy host a guest may stand still for longer than TCP would wait.

use std::io;
use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use emberbox_agent_protocol::{AGENT_PORT, Call, GENERATION, GUEST_ADDRESS, MAX_LINE_BYTES, Reply, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::ProcessEnd;
use crate::engine::Vm;
use crate::sys::namespace::{NetworkNamespace, SocketFactory, end_when_silent};

/// How to reach one guest's agent.
#[derive(Clone)]
pub(crate) struct AgentLink {
    pub sockets: SocketFactory,
    pub namespace: NetworkNamespace,
    pub vm: Arc<dyn Vm>,
}

/// What went wrong with an exchange.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AgentError {
    #[error("no connection to the agent")]
    Connect(#[source] io::Error),
    #[error("the connection to the agent broke")]
    Broken(#[source] io::Error),
    /// The machine's process has.
    #[error("{0}")]
    Ended(ProcessEnd),
    #[error("the agent did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("the agent refused: {0}")]
    Failed(String),
    #[error("the agent answered out of turn")]
    Unexpected,
}

/// One exchange under way.
pub(crate) struct Exchange {
    stream: BufReader<TcpStream>,
    vm: Arc<dyn Vm>,
}

impl AgentLink {
    /// Sends one request; the answers are read from the exchange.
    pub(crate) async fn send(&self, request: Request) -> Result<Exchange, AgentError> {
        self.send_late(|| request).await
    }

    /// As [`AgentLink::send`], for a request that holds the time: it is made when the connection stands.
    async fn send_late(&self, request: impl FnOnce() -> Request) -> Result<Exchange, AgentError> {
        let sent = async {
            let address = SocketAddrV4::new(GUEST_ADDRESS, AGENT_PORT);
            let mut stream = self.sockets.connect(&self.namespace, address).await.map_err(AgentError::Connect)?;
            let call = Call { generation: GENERATION, request: request() };
            let mut line = serde_json::to_vec(&call).map_err(|error| AgentError::Broken(error.into()))?;
            line.push(b'\n');
            stream.write_all(&line).await.map_err(AgentError::Broken)?;
            Ok(stream)
        };
        let stream = while_it_lives(&*self.vm, sent).await?;
        Ok(Exchange { stream: BufReader::new(stream), vm: self.vm.clone() })
    }

    /// One request with one answer, within `deadline`.
    pub(crate) async fn ask(&self, request: Request, deadline: Duration) -> Result<Reply, AgentError> {
        self.ask_late(|| request, deadline).await
    }

    /// As [`AgentLink::ask`], for a request that holds the time.
    pub(crate) async fn ask_late(&self, request: impl FnOnce() -> Request, deadline: Duration) -> Result<Reply, AgentError> {
        let exchange = async { self.send_late(request).await?.next().await };
        timeout(deadline, exchange).await.map_err(|_| AgentError::TimedOut(deadline))?
    }

    /// A request that is answered by [`Reply::Done`].
    pub(crate) async fn command(&self, request: Request, deadline: Duration) -> Result<(), AgentError> {
        match self.ask(request, deadline).await? {
            Reply::Done => Ok(()),
            _ => Err(AgentError::Unexpected),
        }
    }
}

impl Exchange {
    /// The next answer; an answer that says "failed" is an error.
    pub(crate) async fn next(&mut self) -> Result<Reply, AgentError> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_LINE_BYTES as u64);
        let read = async { bounded.read_until(b'\n', &mut line).await.map_err(AgentError::Broken) };
        while_it_lives(&*self.vm, read).await?;
        if line.last() != Some(&b'\n') {
            return Err(AgentError::Broken(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_slice(&line) {
            Ok(Reply::Failed { reason }) => Err(AgentError::Failed(reason)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(AgentError::Broken(error.into())),
        }
    }

    /// The byte stream after [`Reply::Connected`], which nobody watches the machine for.
    pub(crate) fn into_stream(self) -> io::Result<BufReader<TcpStream>> {
        end_when_silent(self.stream.get_ref())?;
        Ok(self.stream)
    }
}

/// Gives up when the machine's process ends: its guest says no goodbye.
async fn while_it_lives<T>(vm: &dyn Vm, exchange: impl Future<Output = Result<T, AgentError>>) -> Result<T, AgentError> {
    tokio::select! {
        biased;
        done = exchange => done,
        end = vm.ended() => Err(AgentError::Ended(end)),
    }
}
