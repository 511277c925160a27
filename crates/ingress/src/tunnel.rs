//! Connections that left HTTP: bytes both ways until both halves are closed. Owns nothing but the copying; must never outlive the ingress.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use crate::activity::Activity;
use crate::body::GuestConnection;
use crate::request::Connection;

const BUFFER_BYTES: usize = 32 * 1024;

/// Takes over once both sides have switched. Holds the client's place among the connections until it ends.
pub(crate) fn open(connection: &Arc<Connection>, client: OnUpgrade, guest: OnUpgrade, activity: Arc<Activity>, driver: GuestConnection) {
    connection.tunnelled.store(true, Ordering::Relaxed);
    let held = connection.clone();
    let closing = connection.shared.closing.clone();
    let span = tracing::Span::current();
    connection.shared.tasks.spawn(async move {
        let copied = tokio::select! {
            copied = copy(client, guest, &activity) => copied,
            () = closing.cancelled() => Ok((0, 0)),
        };
        match copied {
            Ok((up, down)) => tracing::debug!(parent: &span, up, down, "the tunnel ended"),
            Err(error) => tracing::debug!(parent: &span, %error, "the tunnel broke off"),
        }
        drop((held, driver));
    });
}

async fn copy(client: OnUpgrade, guest: OnUpgrade, activity: &Arc<Activity>) -> io::Result<(u64, u64)> {
    let (client, guest) = tokio::try_join!(client, guest).map_err(io::Error::other)?;
    let mut client = Counted { inner: TokioIo::new(client), activity: activity.clone() };
    let mut guest = Counted { inner: TokioIo::new(guest), activity: activity.clone() };
    copy_bidirectional_with_sizes(&mut client, &mut guest, BUFFER_BYTES, BUFFER_BYTES).await
}

/// A side of the tunnel that says when bytes come from it.
struct Counted {
    inner: TokioIo<Upgraded>,
    activity: Arc<Activity>,
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if read.is_ready() {
            self.activity.moved();
        }
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
