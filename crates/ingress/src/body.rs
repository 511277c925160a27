//! Bodies on their way through. Nothing is held back: a frame that arrives is a frame that leaves. Must never turn a broken body into a complete one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio_util::task::AbortOnDropHandle;

use crate::activity::Activity;

/// An answer of ours, or the application's.
pub(crate) type EndpointBody = Either<Full<Bytes>, Metered>;

/// The task that drives a connection to the guest; ends with it.
pub(crate) type GuestConnection = AbortOnDropHandle<()>;

/// A body that says when it moves.
pub(crate) struct Metered {
    inner: Incoming,
    activity: Arc<Activity>,
    /// Held by the answer: when the client goes, so does the guest's connection.
    _guest: Option<GuestConnection>,
}

impl Metered {
    pub(crate) fn request(inner: Incoming, activity: Arc<Activity>) -> Self {
        Self { inner, activity, _guest: None }
    }

    pub(crate) fn response(inner: Incoming, activity: Arc<Activity>, guest: GuestConnection) -> Self {
        Self { inner, activity, _guest: Some(guest) }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(_))) => self.activity.moved(),
            Poll::Ready(Some(Err(error))) => tracing::debug!(%error, "a body broke off"),
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
