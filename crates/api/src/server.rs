//! Connections: accepted, capped, served over HTTP/1.1, and drained at shutdown.
//!
//! Owns every task it starts and joins them; knows nothing of what is served.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use emberbox_wire::audit::AuditLog;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::catalogue::{Catalogue, LoadCatalogueError};
use crate::front::Front;
use crate::services::{Credentials, Operations, QueryService, StreamingService};
use crate::sigv4::SigningKeys;

/// A head that takes longer is an attack or a dead peer; it also ends idle keep-alive connections, so it is longer than SDKs keep theirs in use.
const HEAD_DEADLINE: Duration = Duration::from_secs(60);
/// AWS's limit on the headers of a request is 8-16 KiB; presigned URLs and cookies of proxies need some room.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 100;
/// What a request may still take once shutdown has begun.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// Between failed accepts, e.g. when the process is out of descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The region signatures for `lambda` must name.
    pub region: String,
    /// Connections at once; more wait in the listen queue.
    pub max_connections: usize,
}

impl ServerConfig {
    pub fn new(region: impl Into<String>) -> Self {
        Self { region: region.into(), max_connections: 1024 }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BuildServerError {
    #[error("the service models could not be used")]
    Catalogue(#[from] LoadCatalogueError),
}

pub struct Server {
    front: Front,
    max_connections: usize,
}

impl Server {
    pub fn new(
        config: ServerConfig,
        credentials: Arc<dyn Credentials>,
        operations: Arc<dyn Operations>,
        audit: Arc<dyn AuditLog>,
    ) -> Result<Self, BuildServerError> {
        let catalogue = Catalogue::load()?;
        let running = TaskTracker::new();
        let signing_keys = SigningKeys::default();
        let front = Front {
            region: config.region,
            catalogue,
            credentials,
            signing_keys,
            operations,
            audit,
            sts: None,
            iam: None,
            s3: None,
            running,
        };
        Ok(Self { front, max_connections: config.max_connections })
    }

    pub fn with_sts(mut self, sts: Arc<dyn QueryService>) -> Self {
        self.front.sts = Some(sts);
        self
    }

    pub fn with_iam(mut self, iam: Arc<dyn QueryService>) -> Self {
        self.front.iam = Some(iam);
        self
    }

    pub fn with_s3(mut self, s3: Arc<dyn StreamingService>) -> Self {
        self.front.s3 = Some(s3);
        self
    }

    /// Serves until `shutdown` resolves, then lets what is under way finish for [`DRAIN_DEADLINE`].
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let front = Arc::new(self.front);
        let permits = Arc::new(Semaphore::new(self.max_connections));
        let connections = TaskTracker::new();
        let (stop, stopping) = watch::channel(());
        tokio::pin!(shutdown);
        loop {
            let accepted = async {
                let permit = permits.clone().acquire_owned().await;
                (listener.accept().await, permit)
            };
            let (stream, permit) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accepted => accepted,
            };
            match stream {
                Ok((stream, peer)) => {
                    let connection = serve_connection(stream, peer.ip().to_canonical(), front.clone(), stopping.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
        drop(listener);
        drop(stop);
        drain(&connections, &front.running).await;
    }
}

async fn serve_connection(stream: TcpStream, client: IpAddr, front: Arc<Front>, mut stopping: watch::Receiver<()>) {
    // Small answers must not wait for Nagle.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let front = front.clone();
        async move { Ok::<_, Infallible>(front.answer(request, client).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        // Resolves when the sender is dropped.
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

async fn drain(connections: &TaskTracker, operations: &TaskTracker) {
    connections.close();
    operations.close();
    let drained = tokio::time::timeout(DRAIN_DEADLINE, async {
        connections.wait().await;
        operations.wait().await;
    });
    if drained.await.is_err() {
        tracing::warn!(connections = connections.len(), operations = operations.len(), "shutdown did not wait for what is still under way");
    }
}
