//! From an admitted request to the application's answer, over a fresh stream.
//!
//! A stream per request costs one connection inside the guest and can never be stale after a suspend; pooling may come with measurements. The guest is
//! hostile: its heads are bounded, its bodies pass under back-pressure, and an answer that breaks off breaks the client's connection. Must never
//! retry: the application may have acted.

use std::sync::Arc;

use emberbox_control::traffic::TrafficError;
use http_body_util::Either;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::UPGRADE;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;

use crate::activity::Activity;
use crate::body::{EndpointBody, GuestConnection, Metered};
use crate::error::Refusal;
use crate::request::{Connection, Target};
use crate::subprotocol::Subprotocols;
use crate::{headers, tunnel};

/// The longest head of an answer, and its longest trailers.
const MAX_HEAD_BYTES: usize = 64 * 1024;
/// The most that is read ahead of a slow client.
const MAX_READ_AHEAD_BYTES: usize = 128 * 1024;
/// A connect that took longer has woken the MicroVM or waited for it.
const WAITED_MS: u128 = 50;

pub(crate) async fn relay(
    connection: &Arc<Connection>,
    target: Target,
    mut request: Request<Incoming>,
    offered: &Subprotocols,
) -> Result<Response<EndpointBody>, Refusal> {
    let shared = &connection.shared;
    let activity = Activity::begin(shared.traffic.clone(), target.microvm, shared.limits.touch_every);
    let stream = connect(connection, target).await?;
    let (mut guest, driver) = handshake(stream).await?;
    let client = headers::upgrade(request.headers()).map(|_| hyper::upgrade::on(&mut request));
    let request = to_guest(request, target, offered, &activity);
    let response = response_head(connection, &mut guest, request, &activity).await?;
    match client {
        _ if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
            Ok(to_client(response).map(|body| Either::Right(Metered::response(body, activity, driver))))
        }
        Some(client) => switch(connection, client, response, offered, activity, driver),
        None => Err(Refusal::InvalidAnswer),
    }
}

async fn connect(connection: &Connection, target: Target) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static, Refusal> {
    let shared = &connection.shared;
    let began = Instant::now();
    let connected = timeout(shared.limits.connect, shared.traffic.connect(target.microvm, target.port)).await;
    let took = began.elapsed().as_millis();
    Span::current().record("connect_ms", took).record("waited", took >= WAITED_MS);
    let connected = connected.unwrap_or_else(|_| Err(TrafficError::Unreachable("it could not be reached in time".into())));
    connected.map_err(|error| Refusal::of_traffic(error, target.port))
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(SendRequest<Metered>, GuestConnection), Refusal> {
    let mut builder = Builder::new();
    builder.max_header_size(MAX_HEAD_BYTES).max_buf_size(MAX_READ_AHEAD_BYTES);
    let (guest, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| Refusal::of_exchange(&error))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = driver.with_upgrades().await {
            tracing::debug!(%error, "the guest's connection broke off");
        }
    });
    Ok((guest, AbortOnDropHandle::new(driver)))
}

fn to_guest(request: Request<Incoming>, target: Target, offered: &Subprotocols, activity: &Arc<Activity>) -> Request<Metered> {
    let (mut head, body) = request.into_parts();
    head.uri = head.uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    headers::to_guest(&mut head.headers, target.port, body.size_hint().exact().is_none());
    offered.strip(&mut head.headers);
    Request::from_parts(head, Metered::request(body, activity.clone()))
}

/// Waits while the request's body moves, and for as long again once it is still.
async fn response_head(
    connection: &Connection,
    guest: &mut SendRequest<Metered>,
    request: Request<Metered>,
    activity: &Activity,
) -> Result<Response<Incoming>, Refusal> {
    let limits = &connection.shared.limits;
    let answer = guest.send_request(request);
    tokio::pin!(answer);
    let mut tick = interval(limits.touch_every);
    loop {
        tokio::select! {
            response = &mut answer => return response.map_err(|error| Refusal::of_exchange(&error)),
            _ = tick.tick() => activity.touch_if_due(),
        }
        if activity.still_for() >= limits.response_head {
            return Err(Refusal::AnswerTimeout);
        }
    }
}

fn to_client<B>(mut response: Response<B>) -> Response<B> {
    *response.version_mut() = Version::HTTP_11;
    response.extensions_mut().clear();
    headers::to_client(response.headers_mut());
    response
}

fn switch(
    connection: &Arc<Connection>,
    client: OnUpgrade,
    mut response: Response<Incoming>,
    offered: &Subprotocols,
    activity: Arc<Activity>,
    driver: GuestConnection,
) -> Result<Response<EndpointBody>, Refusal> {
    let protocol = response.headers().get(UPGRADE).cloned().ok_or(Refusal::InvalidAnswer)?;
    let guest = hyper::upgrade::on(&mut response);
    tunnel::open(connection, client, guest, activity, driver);
    let mut response = to_client(response).map(|_| Either::Left(Default::default()));
    headers::switch(response.headers_mut(), protocol);
    offered.answer(response.headers_mut());
    Ok(response)
}
