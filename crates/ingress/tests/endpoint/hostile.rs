//! Guests that answer nonsense, clients that stall.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

#[tokio::test]
async fn nonsense_from_the_guest_is_a_bad_gateway() {
    let world = World::new().await;
    let many: String = (0..500).map(|index| format!("x-{index}: 1\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(200_000));
    for (nonsense, message) in [
        (String::new(), "closed the connection without an answer"),
        ("HTTP/1.1 2".into(), "closed the connection without an answer"),
        ("SSH-2.0-OpenSSH_9.2\r\n".into(), "not valid HTTP/1.1"),
        ("HTTP/1.1 abc\r\n\r\n".into(), "not valid HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".into(), "not valid HTTP/1.1"),
        ("HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n".into(), "not valid HTTP/1.1"),
        (format!("HTTP/1.1 200 OK\r\n{many}\r\n"), "not valid HTTP/1.1"),
        (format!("HTTP/1.1 200 OK\r\n{long}\r\n"), "not valid HTTP/1.1"),
        ("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into(), "not valid HTTP/1.1"),
    ] {
        let (guest, _heads) = canned(nonsense.clone()).await;
        world.serve(guest);
        let answer = world.get_in("").await;
        let shown = &nonsense[..nonsense.len().min(60)];
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains(message), "{shown:?} {answer}");
    }
}

#[tokio::test]
async fn a_guest_that_answers_twice_answers_once() {
    let world = World::new().await;
    let (guest, _heads) = canned(format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")).await;
    world.serve(guest);
    let mut stream = world.tls().await;
    for _ in 0..2 {
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", world.auth()).as_bytes()).await.unwrap();
        assert!(!until(&mut stream, "\r\n\r\nok").await.contains("evil"));
    }
}

#[tokio::test]
async fn a_guest_that_is_silent_is_given_up() {
    let mut config = loopback();
    config.limits.response_head = Duration::from_millis(200);
    config.limits.touch_every = Duration::from_millis(20);
    let world = World::with(config).await;
    world.serve(
        guest(|mut stream| async move {
            rest(&mut stream).await;
        })
        .await,
    );
    let answer = world.get_in("").await;
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("did not begin its answer in time"), "{answer}");
}

#[tokio::test]
async fn a_stalled_handshake_or_head_is_closed() {
    let mut config = loopback();
    config.limits.tls_handshake = Duration::from_millis(300);
    config.limits.request_head = Duration::from_millis(300);
    let world = World::with(config).await;
    let mut silent = TcpStream::connect((ADDRESS, world.port)).await.unwrap();
    assert_eq!(soon(silent.read(&mut [0])).await.unwrap_or(0), 0);
    let mut slow = world.tls().await;
    slow.write_all(b"GET / HTTP/1.1\r\nHost:").await.unwrap();
    let _ = rest(&mut slow).await;
    let mut idle = world.tls().await;
    let _ = rest(&mut idle).await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let mut config = loopback();
    config.limits.connections = 1;
    let world = World::with(config).await;
    let first = world.tls().await;
    assert!(tokio::time::timeout(Duration::from_millis(200), world.tls()).await.is_err());
    drop(first);
    soon(world.tls()).await;
}

#[tokio::test]
async fn oversized_and_malformed_requests_are_refused() {
    let world = World::new().await;
    for request in [
        format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(100_000)),
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(),
        "GET / HTTP/1.1\r\nBad Name: 1\r\n\r\n".into(),
        "nonsense\r\n\r\n".into(),
    ] {
        let mut stream = world.tls().await;
        let _ = stream.write_all(request.as_bytes()).await;
        assert!(rest(&mut stream).await.starts_with("HTTP/1.1 4"), "{}", &request[..30.min(request.len())]);
    }
    assert_eq!(world.counts(), (0, 0));
}
