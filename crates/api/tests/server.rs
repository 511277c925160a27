//! Connections over real sockets: the head of requests, shutdown, and clients that hang up.
#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use emberbox_api::{CredentialError, Credentials, Operations, Server, ServerConfig};
use emberbox_wire::audit::{Actor, AuditEvent, AuditLog};
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::error::ApiError;
use emberbox_wire::ids::AccountId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

struct OneKey;

#[async_trait]
impl Credentials for OneKey {
    async fn access_key(&self, id: &str, _: Option<&str>) -> Result<AccessKey, CredentialError> {
        let caller = Caller::root(AccountId("1".into()), id);
        self.secret(id).await.map(|secret| AccessKey { id: id.into(), secret, caller })
    }

    async fn secret(&self, id: &str) -> Result<String, CredentialError> {
        if id == "AK" { Ok("secret".into()) } else { Err(CredentialError::Invalid) }
    }
}

/// Operations that end when told to.
#[derive(Default)]
struct Slow {
    begun: Notify,
    go_on: Notify,
    finished: AtomicUsize,
}

#[async_trait]
impl Operations for Slow {
    async fn authorize(&self, caller: &Caller, _: &str, _: &Value) -> Result<(), ApiError> {
        assert!(caller.source_ip.is_loopback(), "the caller's address is the connection's");
        Ok(())
    }

    async fn call(&self, _: Caller, _: &str, _: Value) -> Result<Value, ApiError> {
        self.begun.notify_one();
        self.go_on.notified().await;
        self.finished.fetch_add(1, Ordering::SeqCst);
        Ok(json!({"items": []}))
    }
}

#[derive(Default)]
struct Audit(Mutex<Vec<AuditEvent>>);

impl AuditLog for Audit {
    fn event(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Audit {
    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|event| event.name.clone()).collect()
    }
}

struct Running {
    address: String,
    audit: Arc<Audit>,
    slow: Arc<Slow>,
    stop: oneshot::Sender<()>,
    serving: tokio::task::JoinHandle<()>,
}

async fn start() -> Running {
    let slow = Arc::new(Slow::default());
    let audit = Arc::new(Audit::default());
    let server = Server::new(ServerConfig::new("us-east-1"), Arc::new(OneKey), slow.clone(), audit.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(listener, async {
        let _ = stopped.await;
    }));
    Running { address, audit, slow, stop, serving }
}

fn list_microvms(address: &str) -> String {
    let identity = aws_credential_types::Credentials::new("AK", "secret", None, None, "test").into();
    let settings = SigningSettings::default();
    let parameters = v4::SigningParams::builder().identity(&identity).region("us-east-1").name("lambda");
    let parameters = parameters.time(SystemTime::now()).settings(settings).build().unwrap().into();
    let url = format!("http://{address}/2025-09-09/microvms");
    let signable = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(b"")).unwrap();
    let (instructions, _) = sign(signable, &parameters).unwrap().into_parts();
    let headers: String = instructions.headers().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET /2025-09-09/microvms HTTP/1.1\r\nhost: {address}\r\n{headers}\r\n")
}

async fn send(address: &str, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn answer(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.to_lowercase()
}

#[tokio::test]
async fn health_is_unsigned_and_the_rest_is_not() {
    let running = start().await;
    let health = answer(send(&running.address, "GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await).await;
    assert!(
        health.starts_with("http/1.1 200") && health.ends_with(r#"{"status":"ok"}"#) && health.contains("x-amzn-requestid: "),
        "{health}"
    );
    let unsigned = answer(send(&running.address, "GET /2025-09-09/microvms HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await).await;
    assert!(
        unsigned.starts_with("http/1.1 403") && unsigned.contains("x-amzn-errortype: missingauthenticationtokenexception"),
        "{unsigned}"
    );
    let big = format!("GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let refused = answer(send(&running.address, &big).await).await;
    assert!(refused.starts_with("http/1.1 431"), "{refused}");
}

#[tokio::test]
async fn shutdown_lets_a_request_finish() {
    let Running { address, audit, slow, stop, serving } = start().await;
    let stream = send(&address, &list_microvms(&address)).await;
    slow.begun.notified().await;
    stop.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(audit.names().is_empty());
    assert!(!serving.is_finished() && TcpStream::connect(&address).await.is_err(), "no new connections, but the old one lives");
    slow.go_on.notify_one();
    let text = answer(stream).await;
    assert!(text.starts_with("http/1.1 200") && text.ends_with(r#"{"items":[]}"#), "{text}");
    serving.await.unwrap();
}

#[tokio::test]
async fn an_operation_outlives_its_client() {
    let Running { address, audit, slow, stop, serving } = start().await;
    let stream = send(&address, &list_microvms(&address)).await;
    slow.begun.notified().await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.send(()).unwrap();
    slow.go_on.notify_one();
    serving.await.unwrap();
    assert_eq!(slow.finished.load(Ordering::SeqCst), 1);
    assert_eq!(audit.names(), ["ListMicrovms"], "what was done is written down though nobody waited for it");
}

#[tokio::test]
async fn refused_and_unreadable_requests_are_audited() {
    let running = start().await;
    for path in ["/2025-09-09/microvms", "/2026-04-04/network-connectors", "/2025-09-09/nothing", "/?Action=GetCallerIdentity"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nuser-agent: curl/8\r\nconnection: close\r\n\r\n");
        let refused = answer(send(&running.address, &request).await).await;
        assert!(refused.starts_with("http/1.1 403"), "{refused}");
    }
    let events = running.audit.0.lock().unwrap().clone();
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(names, ["ListMicrovms", "ListNetworkConnectors", "Unknown", "GetCallerIdentity"]);
    for event in &events {
        assert_eq!(event.actor, Actor::Unverified { access_key: None });
        assert_eq!(event.address.as_deref(), Some("127.0.0.1"));
        assert_eq!(event.user_agent.as_deref(), Some("curl/8"));
        assert!(event.error.as_ref().unwrap().code.contains("MissingAuthenticationToken"), "{:?}", event.error);
        assert!(event.request_id.is_some());
    }
}

#[tokio::test]
async fn a_url_has_a_longest_length() {
    let running = start().await;
    let request = format!("GET /2025-09-09/microvms?nextToken={} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", "x".repeat(40_000));
    let refused = answer(send(&running.address, &request).await).await;
    assert!(refused.starts_with("http/1.1 413") && refused.contains("requesttoolargeexception"), "{refused}");
}
