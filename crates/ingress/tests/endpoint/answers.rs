//! Every answer that clients may rely on, and what crosses to the application.

use emberbox_control::token::{Purpose, TokenKeys};
use emberbox_control::traffic::TrafficError;
use emberbox_wire::ids::MicrovmId;
use emberbox_wire::microvms::PortSpecification;
use time::{Duration, OffsetDateTime};
use tokio::io::AsyncWriteExt;

use crate::support::*;

fn assert_answer(answer: &str, status: u16, message: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    assert!(answer.contains("content-type: application/json\r\n") && answer.contains("x-amzn-requestid: "), "{answer}");
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    assert_eq!(body, format!(r#"{{"message":"{message}"}}"#));
}

#[tokio::test]
async fn a_request_without_a_credential_is_refused() {
    let world = World::new().await;
    for lines in ["", "X-aws-proxy-auth: x", "X-aws-proxy-auth: a.b.c.d.e", "X-aws-proxy-auth: ", "Authorization: Bearer x"] {
        assert_answer(&world.get(lines).await, 403, "Request missing authentication");
    }
    assert_eq!(world.counts(), (0, 0), "nothing is woken or kept awake for strangers");
}

#[tokio::test]
async fn a_token_that_does_not_fit_is_refused() {
    let world = World::new().await;
    let now = OffsetDateTime::now_utc();
    let all = || vec![PortSpecification::AllPorts {}];
    let good = world.token();
    let mut tampered = good.clone();
    let last = tampered.pop().unwrap();
    // The tag's last character carries two bits more than the tag: take the ones that stay canonical.
    tampered.push(if last == 'A' { 'Q' } else { 'A' });
    let foreign = TokenKeys::generate().mint(&world.keys.open(&good, now).unwrap());
    let expired = world.token_for(world.microvm, Purpose::Traffic, all(), now - Duration::hours(2));
    let other = world.token_for(MicrovmId::random(), Purpose::Traffic, all(), now);
    let shell = world.token_for(world.microvm, Purpose::Shell, all(), now);
    for token in [tampered, foreign, expired, other, shell] {
        assert_answer(&world.get(&format!("X-aws-proxy-auth: {token}")).await, 403, "Token authentication failed");
    }
    assert_eq!(world.counts(), (0, 0));
}

#[tokio::test]
async fn an_address_that_is_nobodys_is_refused_like_a_wrong_token() {
    let world = World::new().await;
    let mut stream = world.tls_to([127, 77, 0, 9].into(), "127.77.0.9").await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{}\r\n", world.auth());
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_answer(&rest(&mut stream).await, 403, "Token authentication failed");
}

#[tokio::test]
async fn a_port_must_be_valid_and_allowed() {
    let world = World::new().await;
    let (guest, _heads) = canned(OK).await;
    world.serve_as(3000, Backend::At(guest));
    let ports = vec![PortSpecification::Range { start_port: 3000, end_port: 3001 }];
    let token = world.token_for(world.microvm, Purpose::Traffic, ports, OffsetDateTime::now_utc());
    let get = async |port: &str| world.get(&format!("X-aws-proxy-auth: {token}\r\n{port}")).await;
    assert_answer(&get("").await, 403, "Access to port denied");
    assert_answer(&get("X-aws-proxy-port: 3002").await, 403, "Access to port denied");
    assert_answer(&get("X-aws-proxy-port: 0").await, 400, "The target port must be a number from 1 to 65535, given once");
    assert_eq!(world.counts().0, 0);
    assert!(get("X-aws-proxy-port: 3000").await.ends_with("ok"));
    assert_answer(&get("X-aws-proxy-port: 3001").await, 502, "Nothing listens on port 3001 of the MicroVM");
}

#[tokio::test]
async fn a_microvm_that_does_not_run_is_a_bad_gateway() {
    let world = World::new().await;
    world.serve_as(1, Backend::Fails(TrafficError::NotRunning("it was \"terminated\"".into())));
    world.serve_as(2, Backend::Fails(TrafficError::Unreachable("no agent".into())));
    let not_running = world.get_in("X-aws-proxy-port: 1").await;
    assert_answer(&not_running, 502, r#"The MicroVM is not running: it was \"terminated\""#);
    assert_answer(&world.get_in("X-aws-proxy-port: 2").await, 502, "The MicroVM does not answer: no agent");
}

#[tokio::test]
async fn what_is_not_built_says_so() {
    let world = World::new().await;
    let answer = world.get_in("X-aws-proxy-force-h2: true").await;
    assert_answer(&answer, 501, "HTTP/2 to the application (X-aws-proxy-force-h2) is not built yet");
    let shell = world.token_for(world.microvm, Purpose::Shell, vec![], OffsetDateTime::now_utc());
    let mut stream = world.tls().await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: lambda-microvms, \
         lambda-microvms.authentication.{shell}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = until(&mut stream, "}").await;
    assert_answer(&head, 501, "shell is not built yet");
}

#[tokio::test]
async fn the_application_sees_a_local_request_without_credentials() {
    let world = World::new().await;
    let answer = "HTTP/1.1 201 Made\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nX-App: 1\r\n\
                  Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok";
    let (guest, mut heads) = canned(answer).await;
    world.serve_as(3000, Backend::At(guest));
    let lines = "X-aws-proxy-port: 3000\r\nX-AWS-Proxy-Future: 1\r\nX-Own: 1\r\nTE: trailers\r\nProxy-Connection: x\r\n\
                 Sec-WebSocket-Protocol: lambda-microvms.port.1, mine\r\n";
    let response = world.get_in(lines).await;
    let head = heads.recv().await.unwrap().to_ascii_lowercase();
    assert!(head.starts_with("get /path?q=1 http/1.1\r\n"), "{head}");
    for present in ["host: localhost:3000\r\n", "x-own: 1\r\n", "te: trailers\r\n", "sec-websocket-protocol: mine\r\n"] {
        assert!(head.contains(present), "{present} {head}");
    }
    for absent in ["x-aws-proxy", "lambda-microvms", "x-forwarded", "proxy-connection", "transfer-encoding"] {
        assert!(!head.contains(absent), "{absent} {head}");
    }
    assert!(response.starts_with("HTTP/1.1 201") && response.ends_with("\r\n\r\nok"), "{response}");
    assert!(response.contains("x-app: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n"), "{response}");
    assert!(!response.contains("x-hop") && !response.contains("keep-alive"), "{response}");
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let world = World::new().await;
    let (guest, _heads) = canned(OK).await;
    world.serve(guest);
    let mut stream = world.tls().await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]), "h2 is not offered");
    for _ in 0..3 {
        stream.write_all(format!("HEAD / HTTP/1.1\r\nHost: x\r\n{}\r\n", world.auth()).as_bytes()).await.unwrap();
        assert!(until(&mut stream, "\r\n\r\n").await.contains("content-length: 2\r\n"));
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", world.auth()).as_bytes()).await.unwrap();
        assert!(until(&mut stream, "\r\n\r\nok").await.starts_with("HTTP/1.1 200"));
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        assert_answer(&until(&mut stream, "}").await, 403, "Request missing authentication");
    }
    assert_eq!(world.counts().0, 6);
    assert!(world.counts().1 >= 11, "each request touches at its start and end: {:?}", world.counts());
}

#[tokio::test]
async fn requests_in_progress_end_before_a_shutdown() {
    let world = World::new().await;
    let (release, released) = tokio::sync::watch::channel(false);
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    world.serve(
        guest(move |mut stream| {
            let (mut released, begun) = (released.clone(), begun.clone());
            async move {
                until(&mut stream, "\r\n\r\n").await;
                begun.send(()).unwrap();
                released.wait_for(|released| *released).await.unwrap();
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await,
    );
    let mut stream = world.tls().await;
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", world.auth()).as_bytes()).await.unwrap();
    soon(begins.recv()).await.unwrap();
    world.begin_stop();
    tokio::task::yield_now().await;
    release.send(true).unwrap();
    let answer = rest(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    world.stop().await;
}
