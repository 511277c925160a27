//! One request through its phases. Owns their order: who asks is settled before anything wakes.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use emberbox_control::token::TokenKeys;
use emberbox_control::traffic::Traffic;
use emberbox_wire::ids::MicrovmId;
use hyper::body::Incoming;
use hyper::{Method, Request, Response};
use time::OffsetDateTime;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use uuid::Uuid;

use crate::body::EndpointBody;
use crate::config::Limits;
use crate::error::Refusal;
use crate::locate::Origin;
use crate::subprotocol::Subprotocols;
use crate::{authenticate, headers, relay};

/// What all connections of an ingress have in common.
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) traffic: Arc<dyn Traffic>,
    pub(crate) tokens: Arc<TokenKeys>,
    /// Connections and tunnels; joined before the ingress ends.
    pub(crate) tasks: TaskTracker,
    /// No new requests; tunnels end.
    pub(crate) closing: CancellationToken,
}

/// One client's connection.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) origin: Origin,
    /// It has left HTTP.
    pub(crate) tunnelled: Arc<AtomicBool>,
    /// Its place among the connections allowed at once.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// An authenticated request's destination.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub(crate) microvm: MicrovmId,
    pub(crate) port: u16,
}

pub(crate) async fn answer(connection: Arc<Connection>, request: Request<Incoming>) -> Result<Response<EndpointBody>, Infallible> {
    let request_id = Uuid::new_v4();
    let span = tracing::info_span!(
        "endpoint_request", %request_id, microvm = Empty, port = Empty, status = Empty, connect_ms = Empty, waited = Empty, first_byte_ms = Empty
    );
    let began = Instant::now();
    let answer = phases(&connection, request).instrument(span.clone()).await;
    let response = answer.unwrap_or_else(|refusal| {
        span.in_scope(|| tracing::debug!(%refusal, "refused"));
        refusal.into_response(request_id)
    });
    span.record("status", response.status().as_u16());
    span.record("first_byte_ms", began.elapsed().as_millis());
    span.in_scope(|| tracing::info!("answered"));
    Ok(response)
}

async fn phases(connection: &Arc<Connection>, request: Request<Incoming>) -> Result<Response<EndpointBody>, Refusal> {
    let offered = Subprotocols::offered(request.headers());
    let target = admit(connection, &request, &offered).await?;
    Span::current().record("microvm", tracing::field::display(target.microvm)).record("port", target.port);
    reject_unbuilt(&request)?;
    relay::relay(connection, target, request, &offered).await
}

/// Locates, authenticates, and chooses the port.
async fn admit(connection: &Connection, request: &Request<Incoming>, offered: &Subprotocols) -> Result<Target, Refusal> {
    let Shared { traffic, tokens, .. } = &*connection.shared;
    let head = request.headers();
    let endpoint = connection.origin.endpoint(request.uri(), head)?;
    let websocket = request.method() == Method::GET && headers::is_websocket(head);
    let offered = websocket.then_some(offered);
    let claims = authenticate::open(tokens, authenticate::credential(head, offered)?, OffsetDateTime::now_utc())?;
    let microvm = authenticate::authorize(&claims, traffic.locate(&endpoint).await, websocket)?;
    let port = authenticate::target_port(head, offered)?;
    claims.allows(port).then_some(Target { microvm, port }).ok_or(Refusal::PortDenied)
}

fn reject_unbuilt(request: &Request<Incoming>) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        return Err(Refusal::ConnectMethod);
    }
    let forced = request.headers().get("x-aws-proxy-force-h2").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
    if forced { Err(Refusal::ForceHttp2) } else { Ok(()) }
}
