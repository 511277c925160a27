//! Traffic to a port of the application.

use std::io;
use std::time::Duration;

use emberbox_agent_protocol::Reply;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::time::timeout;

use crate::link::Link;
use crate::{loopback, server};

/// Loopback refuses or accepts at once, unless the application's backlog is full.
const CONNECT: Duration = Duration::from_secs(5);
/// Small: there may be many relays, and each one's buffers are part of a snapshot.
const BUFFER_BYTES: usize = 16 * 1024;

/// Carries bytes both ways, half-closes included, until both ends are done or one breaks.
pub(crate) async fn relay(mut link: Link, port: u16) {
    let connected = timeout(CONNECT, loopback::connect(port)).await;
    let mut application = match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(application) => application,
        Err(error) => return server::finish(link, Reply::Refused { reason: format!("port {port}: {error}") }).await,
    };
    if link.send(&Reply::Connected).await.is_err() {
        return;
    }
    let mut host = link.into_stream();
    let _ = copy_bidirectional_with_sizes(&mut host, &mut application, BUFFER_BYTES, BUFFER_BYTES).await;
}
