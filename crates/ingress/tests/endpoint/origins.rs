//! Addresses and names: who is reached, and by which certificate.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;

use emberbox_control::token::{Purpose, TokenKeys};
use emberbox_control::traffic::EndpointName;
use emberbox_ingress::{BindError, Ingress, IngressConfig, IngressMode};
use emberbox_wire::ids::MicrovmId;
use emberbox_wire::microvms::PortSpecification;
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::*;

const OTHER: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 2);

#[tokio::test]
async fn two_addresses_are_two_origins() {
    let world = World::new().await;
    let other = MicrovmId::random();
    world.traffic.endpoints.lock().unwrap().insert(EndpointName::Address(OTHER), other);
    for (microvm, body) in [(world.microvm, "one"), (other, "two")] {
        let (guest, _heads) = canned(format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{body}")).await;
        world.traffic.backends.lock().unwrap().insert((microvm, 8080), Backend::At(guest));
    }
    for (address, microvm, body) in [(ADDRESS, world.microvm, "one"), (OTHER, other, "two")] {
        let token = world.token_for(microvm, Purpose::Traffic, vec![PortSpecification::Port(8080)], OffsetDateTime::now_utc());
        let mut stream = world.tls_to(address, &address.to_string()).await.unwrap();
        stream.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\nX-aws-proxy-auth: {token}\r\n\r\n").as_bytes()).await.unwrap();
        until(&mut stream, body).await;
    }
    let mut crossed = world.tls_to(OTHER, "127.77.0.2").await.unwrap();
    crossed.write_all(format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", world.auth()).as_bytes()).await.unwrap();
    assert!(until(&mut crossed, "}").await.contains("Token authentication failed"));
    assert!(world.tls_to(OTHER, "127.77.0.1").await.is_err(), "the certificate is the address's own");
}

#[tokio::test]
async fn names_are_found_by_their_first_label() {
    let mode = IngressMode::Domain { domain: "VM.test".into(), listen: Ipv4Addr::LOCALHOST.into() };
    let world = World::with(IngressConfig::new(0, mode)).await;
    world.traffic.endpoints.lock().unwrap().insert(EndpointName::Label("a".into()), world.microvm);
    let (guest, _heads) = canned(OK).await;
    world.serve(guest);
    let get = async |sni: &str, host: &str| {
        let mut stream = world.tls_to(Ipv4Addr::LOCALHOST, sni).await?;
        let request = format!("GET / HTTP/1.1\r\nConnection: close\r\nHost: {host}\r\n{}\r\n", world.auth());
        stream.write_all(request.as_bytes()).await?;
        Ok::<_, std::io::Error>(rest(&mut stream).await)
    };
    assert!(get("a.vm.test", "A.vm.test:8443").await.unwrap().ends_with("ok"));
    assert!(get("a.vm.test", "b.vm.test").await.unwrap().starts_with("HTTP/1.1 421"));
    assert!(get("b.vm.test", "b.vm.test").await.unwrap().contains("Token authentication failed"));
    assert!(get("vm.test", "vm.test").await.unwrap().contains("Token authentication failed"));
    for foreign in ["x.a.vm.test", "vm.other", "127.0.0.1"] {
        assert!(get(foreign, foreign).await.is_err(), "{foreign}");
    }
}

#[tokio::test]
async fn a_taken_port_says_what_to_do() {
    let world = World::new().await;
    let config = IngressConfig::new(world.port, IngressMode::Loopback);
    let refused = Ingress::bind(config, world.authority.clone(), world.traffic.clone(), Arc::new(TokenKeys::generate()));
    let Err(error @ BindError::PortTaken { .. }) = refused else { panic!("the port is taken") };
    assert!(error.to_string().contains("set another ingress port"), "{error}");
}

#[tokio::test]
async fn an_address_beyond_loopback_is_not_served() {
    let world = World::new().await;
    let route = UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()));
    let Ok(IpAddr::V4(own)) = route.map(|address| address.ip()) else {
        eprintln!("SKIPPED: this machine has no address but loopback");
        return;
    };
    if let Ok(mut stream) = TcpStream::connect((own, world.port)).await {
        let _ = stream.write_all(b"x").await;
        assert_eq!(rest(&mut stream).await, "", "not even a TLS alert");
    }
}
