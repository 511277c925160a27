//! From the listening socket to requests. Owns the accept loop, TLS handshakes and shutdown; a connection holds a place from before its handshake
//! until it or its tunnel ends. Must never accept for an address outside loopback in loopback mode.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use emberbox_control::token::TokenKeys;
use emberbox_control::traffic::Traffic;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::authority::Authority;
use crate::bind::{self, BindError};
use crate::certificates::{Certificates, Subject};
use crate::config::{IngressConfig, IngressMode, Limits};
use crate::linger::Lingering;
use crate::locate::Origin;
use crate::request::{self, Connection, Shared};

/// The longest head of a request: a token with many ports, and generous cookies.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_READ_AHEAD_BYTES: usize = 128 * 1024;
/// Out of descriptors, accepting fails at once and again: wait for some to come free.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Peers that vanished without a word are found in some two minutes.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));

/// The bound endpoints, ready to run.
pub struct Ingress {
    listener: TcpListener,
    port: u16,
    acceptor: Arc<Acceptor>,
}

struct Acceptor {
    mode: IngressMode,
    certificates: Certificates,
    places: Arc<Semaphore>,
    shared: Arc<Shared>,
    /// The time of grace is over.
    aborting: CancellationToken,
}

impl Ingress {
    /// Takes the port before there is anything to serve, because endpoints are named by it; to be called within a Tokio runtime.
    pub fn claim(config: IngressConfig) -> Result<Claim, BindError> {
        let mode = config.mode.lower_case();
        let listener = bind::listen(&mode, config.port)?;
        let port = listener.local_addr().map_or(config.port, |address| address.port());
        Ok(Claim { mode, limits: config.limits, listener, port })
    }

    /// Binds the port and serves at once.
    pub fn bind(
        config: IngressConfig,
        authority: Arc<Authority>,
        traffic: Arc<dyn Traffic>,
        tokens: Arc<TokenKeys>,
    ) -> Result<Self, BindError> {
        Self::claim(config)?.serve(authority, traffic, tokens)
    }

    /// The port it listens on, chosen by the kernel when 0 was asked for.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves until `shutdown`; then finishes requests in progress, for as long as the limits allow.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) {
        let Self { listener, acceptor, .. } = self;
        tokio::select! {
            () = shutdown => {}
            () = acceptor.clone().accept(&listener) => {}
        }
        drop(listener);
        acceptor.drain().await;
    }
}

/// A port that is taken; clients wait in its backlog until it is served.
pub struct Claim {
    mode: IngressMode,
    limits: Limits,
    listener: TcpListener,
    port: u16,
}

impl Claim {
    /// The port, chosen by the kernel when 0 was asked for.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn serve(self, authority: Arc<Authority>, traffic: Arc<dyn Traffic>, tokens: Arc<TokenKeys>) -> Result<Ingress, BindError> {
        let Self { mode, limits, listener, port } = self;
        let certificates = Certificates::new(authority);
        // A domain no certificate can name is refused now, not at the first client.
        certificates.server_config(&mode.subject(Ipv4Addr::LOCALHOST), OffsetDateTime::now_utc())?;
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let places = Arc::new(Semaphore::new(limits.connections));
        let shared = Arc::new(Shared { limits, traffic, tokens, tasks, closing });
        let acceptor = Arc::new(Acceptor { mode, certificates, places, shared, aborting: CancellationToken::new() });
        Ok(Ingress { listener, port, acceptor })
    }
}

impl Acceptor {
    async fn accept(self: Arc<Self>, listener: &TcpListener) {
        while let Ok(place) = self.places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    self.shared.tasks.spawn(self.clone().connection(stream, place));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    async fn drain(&self) {
        let Shared { tasks, closing, limits, .. } = &*self.shared;
        closing.cancel();
        tasks.close();
        if timeout(limits.drain, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "requests in progress are broken off");
            self.aborting.cancel();
            tasks.wait().await;
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, place: OwnedSemaphorePermit) {
        tokio::select! {
            ended = self.serve(stream, place) => if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke off");
            },
            () = self.aborting.cancelled() => {}
        }
    }

    async fn serve(&self, stream: TcpStream, place: OwnedSemaphorePermit) -> io::Result<()> {
        let (stream, origin) = self.handshake(stream).await?;
        let tunnelled = Arc::new(AtomicBool::new(false));
        let stream = TokioIo::new(Lingering::new(stream, tunnelled.clone()));
        let connection = Arc::new(Connection { shared: self.shared.clone(), origin, tunnelled, _place: place });
        let service = service_fn(move |request| request::answer(connection.clone(), request));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.shared.limits.request_head)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(MAX_READ_AHEAD_BYTES)
            .serve_connection(stream, service)
            .with_upgrades();
        tokio::pin!(served);
        tokio::select! {
            ended = served.as_mut() => return ended.map_err(io::Error::other),
            () = self.shared.closing.cancelled() => served.as_mut().graceful_shutdown(),
        }
        served.await.map_err(io::Error::other)
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Origin)> {
        let address = self.mode.admit(stream.local_addr()?.ip())?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&KEEPALIVE)?;
        let config = self.certificates.server_config(&self.mode.subject(address), OffsetDateTime::now_utc()).map_err(io::Error::other)?;
        let stream = timeout(self.shared.limits.tls_handshake, TlsAcceptor::from(config).accept(stream)).await??;
        let origin = match &self.mode {
            IngressMode::Loopback => Origin::Address(address),
            IngressMode::Domain { domain, .. } => {
                let sni = stream.get_ref().1.server_name().unwrap_or_default().to_ascii_lowercase();
                Origin::Name { sni, domain: domain.clone() }
            }
        };
        Ok((stream, origin))
    }
}

impl IngressMode {
    fn lower_case(self) -> Self {
        match self {
            Self::Loopback => Self::Loopback,
            Self::Domain { domain, listen } => Self::Domain { domain: domain.to_ascii_lowercase(), listen },
        }
    }

    fn subject(&self, address: Ipv4Addr) -> Subject {
        match self {
            Self::Loopback => Subject::Address(address),
            Self::Domain { domain, .. } => Subject::Domain(domain.clone()),
        }
    }

    /// The address that names an endpoint; meaningless where names do.
    fn admit(&self, local: IpAddr) -> io::Result<Ipv4Addr> {
        match (self, local) {
            (Self::Domain { .. }, _) => Ok(Ipv4Addr::LOCALHOST),
            (Self::Loopback, IpAddr::V4(address)) if address.is_loopback() => Ok(address),
            (Self::Loopback, _) => Err(io::Error::other("not a loopback address")),
        }
    }
}
