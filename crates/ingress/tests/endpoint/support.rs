//! An ingress over a fake control, and helpers that speak raw HTTP to it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use emberbox_control::token::{Claims, Purpose, TokenKeys};
use emberbox_control::traffic::{EndpointName, Traffic, TrafficError};
use emberbox_host::GuestStream;
use emberbox_ingress::{Authority, Ingress, IngressConfig, IngressMode};
use emberbox_wire::ids::MicrovmId;
use emberbox_wire::microvms::PortSpecification;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use time::OffsetDateTime;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

pub(crate) const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone)]
pub(crate) enum Backend {
    At(SocketAddr),
    Fails(TrafficError),
}

#[derive(Default)]
pub(crate) struct FakeTraffic {
    pub(crate) endpoints: Mutex<HashMap<EndpointName, MicrovmId>>,
    pub(crate) backends: Mutex<HashMap<(MicrovmId, u16), Backend>>,
    pub(crate) connects: AtomicUsize,
    pub(crate) touches: AtomicUsize,
}

#[async_trait]
impl Traffic for FakeTraffic {
    async fn locate(&self, endpoint: &EndpointName) -> Option<MicrovmId> {
        self.endpoints.lock().unwrap().get(endpoint).copied()
    }

    async fn connect(&self, microvm: MicrovmId, port: u16) -> Result<Box<dyn GuestStream>, TrafficError> {
        self.connects.fetch_add(1, Ordering::SeqCst);
        let backend = self.backends.lock().unwrap().get(&(microvm, port)).cloned();
        match backend {
            Some(Backend::At(address)) => Ok(Box::new(TcpStream::connect(address).await.map_err(|_| TrafficError::Refused)?)),
            Some(Backend::Fails(error)) => Err(error),
            None => Err(TrafficError::Refused),
        }
    }

    fn touch(&self, _: MicrovmId) {
        self.touches.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) struct World {
    pub(crate) port: u16,
    pub(crate) microvm: MicrovmId,
    pub(crate) keys: Arc<TokenKeys>,
    pub(crate) traffic: Arc<FakeTraffic>,
    pub(crate) authority: Arc<Authority>,
    stop: CancellationToken,
    running: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

pub(crate) fn loopback() -> IngressConfig {
    IngressConfig::new(0, IngressMode::Loopback)
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(loopback()).await
    }

    pub(crate) async fn with(config: IngressConfig) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(dir.path()).unwrap());
        let traffic = Arc::new(FakeTraffic::default());
        let keys = Arc::new(TokenKeys::generate());
        let ingress = Ingress::bind(config, authority.clone(), traffic.clone(), keys.clone()).unwrap();
        let (port, stop) = (ingress.port(), CancellationToken::new());
        let running = tokio::spawn(ingress.run(stop.clone().cancelled_owned()));
        let microvm = MicrovmId::random();
        traffic.endpoints.lock().unwrap().insert(EndpointName::Address(ADDRESS), microvm);
        Self { port, microvm, keys, traffic, authority, stop, running, _dir: dir }
    }

    /// Puts a guest behind port 8080 of the MicroVM.
    pub(crate) fn serve(&self, guest: SocketAddr) {
        self.serve_as(8080, Backend::At(guest));
    }

    pub(crate) fn serve_as(&self, port: u16, backend: Backend) {
        self.traffic.backends.lock().unwrap().insert((self.microvm, port), backend);
    }

    /// For every port of the MicroVM, for an hour.
    pub(crate) fn token(&self) -> String {
        self.token_for(self.microvm, Purpose::Traffic, vec![PortSpecification::AllPorts {}], OffsetDateTime::now_utc())
    }

    pub(crate) fn token_for(&self, microvm: MicrovmId, purpose: Purpose, ports: Vec<PortSpecification>, now: OffsetDateTime) -> String {
        self.keys.mint(&Claims::new(microvm, purpose, ports, now, HOUR))
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.authority.certificate_path()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        TlsConnector::from(Arc::new(config))
    }

    pub(crate) async fn tls_to(&self, address: Ipv4Addr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect((address, self.port)).await?;
        self.connector().connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
    }

    pub(crate) async fn tls(&self) -> TlsStream<TcpStream> {
        self.tls_to(ADDRESS, &ADDRESS.to_string()).await.unwrap()
    }

    /// One request on a connection of its own; `lines` are further header lines.
    pub(crate) async fn get(&self, lines: &str) -> String {
        let mut stream = self.tls().await;
        let lines = if lines.is_empty() || lines.ends_with("\r\n") { lines.to_owned() } else { format!("{lines}\r\n") };
        stream.write_all(format!("GET /path?q=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n").as_bytes()).await.unwrap();
        rest(&mut stream).await
    }

    /// Like `get`, authenticated.
    pub(crate) async fn get_in(&self, lines: &str) -> String {
        self.get(&format!("{}{lines}", self.auth())).await
    }

    pub(crate) fn auth(&self) -> String {
        format!("X-aws-proxy-auth: {}\r\n", self.token())
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        soon(self.running).await.unwrap();
    }

    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.traffic.connects.load(Ordering::SeqCst), self.traffic.touches.load(Ordering::SeqCst))
    }
}

pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it took too long")
}

/// Everything until the end, however it ends.
pub(crate) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut bytes = Vec::new();
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Reads until `end` has been seen.
pub(crate) async fn until(stream: &mut (impl AsyncRead + Unpin), end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        assert_ne!(soon(stream.read(&mut byte)).await.unwrap(), 0, "ended before {end:?}: {:?}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// A guest's server; each connection is served by `serve`.
pub(crate) async fn guest<F, Served>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> Served + Send + 'static,
    Served: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A guest that reads a head, sends it to the test, writes `answer` and closes.
pub(crate) async fn canned(answer: impl Into<Vec<u8>>) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (heads, received) = mpsc::unbounded_channel();
    let answer: Arc<Vec<u8>> = Arc::new(answer.into());
    let address = guest(move |mut stream| {
        let (heads, answer) = (heads.clone(), answer.clone());
        async move {
            let _ = heads.send(until(&mut stream, "\r\n\r\n").await);
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
            rest(&mut stream).await;
        }
    })
    .await;
    (address, received)
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
