//! A byte stream to a port of the application, relayed by the agent.

use std::sync::Arc;
use std::time::Duration;

use emberbox_agent_protocol::{Reply, Request};

use crate::local::LocalHost;
use crate::{ConnectError, GuestStream, MachineId};

/// The agent gives the application 5 s to accept.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);

pub(crate) async fn connect(host: &Arc<LocalHost>, machine: MachineId, port: u16) -> Result<Box<dyn GuestStream>, ConnectError> {
    let running = host.running(machine).ok_or(ConnectError::NotRunning)?;
    let agent = running.agent(host);
    let exchange = async {
        let mut exchange = agent.send(Request::Relay { port }).await?;
        let reply = exchange.next().await?;
        Ok::<_, crate::agent::AgentError>((reply, exchange))
    };
    match tokio::time::timeout(CONNECTED_WITHIN, exchange).await {
        Ok(Ok((Reply::Connected, exchange))) => match exchange.into_stream() {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(ConnectError::Unreachable(error.to_string())),
        },
        Ok(Ok((Reply::Refused { .. }, _))) => Err(ConnectError::Refused),
        Ok(Ok(_)) => Err(ConnectError::Unreachable("the agent answered out of turn".into())),
        Ok(Err(error)) => Err(ConnectError::Unreachable(error.to_string())),
        Err(_) => Err(ConnectError::Unreachable("no answer in time".into())),
    }
}
