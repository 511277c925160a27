//! Upgrades become tunnels; the subprotocol rules of browsers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::client::TlsStream;

use crate::support::*;

/// A guest that switches, with these further header lines, and echoes until its input ends; then says `bye`.
async fn echo(world: &World, lines: &'static str) -> mpsc::UnboundedReceiver<String> {
    let (heads, received) = mpsc::unbounded_channel();
    let guest = guest(move |mut stream| {
        let heads = heads.clone();
        async move {
            let _ = heads.send(until(&mut stream, "\r\n\r\n").await.to_ascii_lowercase());
            let head =
                format!("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s\r\n{lines}\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
            let _ = stream.write_all(b"bye").await;
        }
    })
    .await;
    world.serve_as(8080, Backend::At(guest));
    world.serve_as(3000, Backend::At(guest));
    received
}

async fn upgrade(world: &World, lines: &str) -> TlsStream<TcpStream> {
    let mut stream = world.tls().await;
    let request = format!(
        "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\
         Sec-WebSocket-Version: 13\r\n{lines}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_browser_authenticates_by_subprotocol() {
    let world = World::new().await;
    let mut heads = echo(&world, "").await;
    let protocols = format!("lambda-microvms, lambda-microvms.authentication.{}, lambda-microvms.port.3000", world.token());
    let mut stream = upgrade(&world, &format!("Sec-WebSocket-Protocol: {protocols}\r\n")).await;
    let answer = until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    for line in
        ["connection: upgrade\r\n", "upgrade: websocket\r\n", "sec-websocket-accept: s\r\n", "sec-websocket-protocol: lambda-microvms\r\n"]
    {
        assert!(answer.contains(line), "{line} {answer}");
    }
    let head = heads.recv().await.unwrap();
    assert!(head.contains("host: localhost:3000\r\n") && head.contains("upgrade: websocket\r\n"), "{head}");
    assert!(head.contains("sec-websocket-key: k\r\n") && !head.contains("lambda") && !head.contains("sec-websocket-protocol"), "{head}");
    for message in ["one", "two", &"x".repeat(100_000)] {
        stream.write_all(message.as_bytes()).await.unwrap();
        let mut echoed = vec![0; message.len()];
        soon(stream.read_exact(&mut echoed)).await.unwrap();
        assert_eq!(echoed, message.as_bytes());
    }
}

#[tokio::test]
async fn the_application_may_pick_one_of_its_own() {
    let world = World::new().await;
    let mut heads = echo(&world, "Sec-WebSocket-Protocol: v2\r\n").await;
    let protocols = format!("v1, lambda-microvms, v2, lambda-microvms.authentication.{}", world.token());
    let mut stream = upgrade(&world, &format!("Sec-WebSocket-Protocol: {protocols}\r\n")).await;
    assert!(until(&mut stream, "\r\n\r\n").await.contains("sec-websocket-protocol: v2\r\n"));
    assert!(heads.recv().await.unwrap().contains("sec-websocket-protocol: v1, v2\r\n"));
}

#[tokio::test]
async fn a_client_that_offers_none_is_told_none() {
    let world = World::new().await;
    let _heads = echo(&world, "").await;
    let mut stream = upgrade(&world, &world.auth()).await;
    let answer = until(&mut stream, "\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 101") && !answer.contains("sec-websocket-protocol"), "{answer}");
}

#[tokio::test]
async fn dropping_the_bare_subprotocol_is_a_refusal() {
    let world = World::new().await;
    let mut stream = upgrade(&world, &format!("Sec-WebSocket-Protocol: lambda-microvms.authentication.{}\r\n", world.token())).await;
    assert!(until(&mut stream, "}").await.contains("Request missing authentication"));
    assert_eq!(world.counts(), (0, 0));
}

#[tokio::test]
async fn subprotocols_of_a_plain_request_are_no_credential() {
    let world = World::new().await;
    let line = format!("Sec-WebSocket-Protocol: lambda-microvms, lambda-microvms.authentication.{}", world.token());
    assert!(world.get(&line).await.contains("Request missing authentication"));
}

#[tokio::test]
async fn halves_of_a_tunnel_close_apart() {
    let world = World::new().await;
    let _heads = echo(&world, "").await;
    let mut stream = upgrade(&world, &world.auth()).await;
    // What is sent before the answer has come belongs to the tunnel.
    stream.write_all(b"early").await.unwrap();
    until(&mut stream, "\r\n\r\n").await;
    stream.shutdown().await.unwrap();
    assert_eq!(rest(&mut stream).await, "earlybye");
}

#[tokio::test]
async fn a_declined_upgrade_is_an_ordinary_answer() {
    let world = World::new().await;
    let (guest, _heads) = canned("HTTP/1.1 426 No\r\nContent-Length: 2\r\n\r\nno").await;
    world.serve(guest);
    let mut stream = upgrade(&world, &world.auth()).await;
    assert!(until(&mut stream, "\r\n\r\nno").await.starts_with("HTTP/1.1 426"));
}

#[tokio::test]
async fn http2_inside_the_connection_is_not_an_upgrade() {
    let world = World::new().await;
    let (guest, mut heads) = canned(OK).await;
    world.serve(guest);
    let mut stream = world.tls().await;
    let lines = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA\r\n";
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}{}\r\n", world.auth()).as_bytes()).await.unwrap();
    until(&mut stream, "ok").await;
    let head = heads.recv().await.unwrap();
    assert!(!head.contains("h2c") && !head.contains("settings"), "{head}");
}

#[tokio::test]
async fn tunnels_end_with_the_ingress() {
    let world = World::new().await;
    let _heads = echo(&world, "").await;
    let mut stream = upgrade(&world, &world.auth()).await;
    until(&mut stream, "\r\n\r\n").await;
    world.stop().await;
    assert_eq!(rest(&mut stream).await, "");
}
