//! Accepts the host's connections and answers each one's request.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use emberbox_agent_protocol::{AGENT_PORT, GUEST_ADDRESS, HOST_ADDRESS, Hook, Reply, Request};
use tokio::net::{TcpListener, TcpStream};

use crate::agent::{Agent, ConnectionId, Connections};
use crate::link::{Arrival, Link, note_arrivals};
use crate::reaper::Reaper;
use crate::{console, container, freeze, hooks, logs, power, relay, restore, run};

/// Accepting fails when memory or descriptors run out; trying again at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Lines taken from the ring at a time.
const LOG_BATCH: usize = 64;
/// How long output that was written before the application's end may take to be read.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Serves for the rest of the guest's life.
pub(crate) async fn serve() -> Result<()> {
    let agent = Agent::new(Reaper::start()?);
    let address = SocketAddr::from((GUEST_ADDRESS, AGENT_PORT));
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    note_arrivals(&listener).context("noting when requests arrive")?;
    console::say(&format!("listening on {address}"));
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if peer.ip() == IpAddr::V4(HOST_ADDRESS) => {
                Connections::spawn(&agent, |id| serve_connection(agent.clone(), id, stream));
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve_connection(agent: Rc<Agent>, id: ConnectionId, stream: TcpStream) {
    let Ok(mut link) = Link::new(stream) else { return };
    let (request, arrival) = match link.read_call().await {
        Ok((call, arrival)) => (call.request, arrival),
        Err(error) => return finish(link, failed(&error)).await,
    };
    match request {
        Request::Relay { port } => relay::relay(link, port).await,
        Request::FollowLogs { after } => follow_logs(&agent, link, after).await,
        Request::Run(command) => run::run(&agent, link, command).await,
        Request::CallHook(hook) => call_hook(&agent, link, &hook).await,
        Request::PowerOff => power::off(&agent, link).await,
        request => {
            let reply = answer(&agent, id, request, arrival).await.unwrap_or_else(|error| failed(&error));
            finish(link, reply).await;
        }
    }
}

/// Requests that are answered by one reply, whether or not the host waits for it.
async fn answer(agent: &Rc<Agent>, id: ConnectionId, request: Request, arrival: Arrival) -> Result<Reply> {
    match request {
        Request::StartApplication(application) => container::start(agent, application).await?,
        Request::Freeze => freeze::freeze(agent, id).await?,
        Request::Thaw => freeze::thaw(agent)?,
        Request::Restored(restored) => return restore::restored(agent, id, restored, arrival).await,
        Request::Ping | Request::CallHook(_) | Request::Relay { .. } | Request::Run(_) | Request::FollowLogs { .. } | Request::PowerOff => {
        }
    }
    Ok(Reply::Done)
}

async fn call_hook(agent: &Rc<Agent>, mut link: Link, hook: &Hook) {
    let outcome = tokio::select! {
        outcome = hooks::call(hook, agent.application_exit()) => outcome,
        () = link.hung_up() => return,
    };
    finish(link, Reply::Hook(outcome)).await;
}

async fn follow_logs(agent: &Rc<Agent>, mut link: Link, mut after: u64) {
    loop {
        // Registered before looking, so that no line falls between.
        let grown = agent.logs.grown.notified();
        tokio::pin!(grown);
        grown.as_mut().enable();
        let lines = agent.logs.after(after, LOG_BATCH);
        if let Some(last) = lines.last() {
            after = last.sequence;
            if link.send_all(lines.into_iter().map(Reply::Log)).await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            biased;
            () = link.hung_up() => return,
            () = &mut grown => {}
            code = all_said(agent) => {
                // Whatever came while waiting is in the ring by now.
                let _ = link.send_all(agent.logs.after(after, usize::MAX).into_iter().map(Reply::Log)).await;
                return finish(link, Reply::Exited { code }).await;
            }
        }
    }
}

/// Returns the exit code when the application has ended and all its output is in the ring.
async fn all_said(agent: &Rc<Agent>) -> i32 {
    let Some(container) = agent.container() else { return std::future::pending().await };
    let code = container.exited().await;
    let _ = tokio::time::timeout(LAST_OUTPUT, container.output_ended()).await;
    code
}

pub(crate) async fn finish(mut link: Link, reply: Reply) {
    if link.send(&reply).await.is_ok() {
        link.farewell().await;
    }
}

pub(crate) fn failed(error: &anyhow::Error) -> Reply {
    Reply::Failed { reason: logs::cut(format!("{error:#}"), 4096) }
}
