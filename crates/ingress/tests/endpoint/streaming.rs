//! Bodies pass as they come, both ways, and their breaking off is never hidden.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::support::*;

const BIG: usize = 16 << 20;

fn post(world: &World, lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{}{lines}\r\n", world.auth())
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let world = World::new().await;
    let (go, gone) = tokio::sync::watch::channel(0);
    world.serve(
        guest(move |mut stream| {
            let mut gone = gone.clone();
            async move {
                until(&mut stream, "\r\n\r\n").await;
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).await.unwrap();
                for event in 1..=3 {
                    gone.wait_for(|sent| *sent >= event).await.unwrap();
                    stream.write_all(format!("9\r\ndata: {event}\n\n\r\n").as_bytes()).await.unwrap();
                }
                stream.write_all(b"0\r\n\r\n").await.unwrap();
            }
        })
        .await,
    );
    let mut stream = world.tls().await;
    stream.write_all(post(&world, "Content-Length: 0\r\n").as_bytes()).await.unwrap();
    assert!(until(&mut stream, "\r\n\r\n").await.contains("transfer-encoding: chunked\r\n"), "the head comes before any event");
    for event in 1..=3 {
        go.send(event).unwrap();
        until(&mut stream, &format!("data: {event}\n\n\r\n")).await;
    }
    until(&mut stream, "0\r\n\r\n").await;
}

#[tokio::test]
async fn an_upload_reaches_the_application_as_it_is_sent() {
    let world = World::new().await;
    let (seen, mut sees) = mpsc::unbounded_channel();
    world.serve(
        guest(move |mut stream| {
            let seen = seen.clone();
            async move {
                let head = until(&mut stream, "\r\n\r\n").await;
                assert!(head.contains("transfer-encoding: chunked"), "{head}");
                for part in ["one", "two"] {
                    until(&mut stream, part).await;
                    seen.send(part).unwrap();
                }
                until(&mut stream, "0\r\nx-sum: 6\r\n\r\n").await;
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await,
    );
    // A GET, because hyper takes a GET for bodiless unless told otherwise.
    let mut stream = world.tls().await;
    let request = post(&world, "Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n").replace("POST", "GET");
    stream.write_all(request.as_bytes()).await.unwrap();
    for part in ["one", "two"] {
        stream.write_all(format!("3\r\n{part}\r\n").as_bytes()).await.unwrap();
        assert_eq!(soon(sees.recv()).await, Some(part));
    }
    stream.write_all(b"0\r\nx-sum: 6\r\n\r\n").await.unwrap();
    until(&mut stream, "\r\n\r\nok").await;
}

#[tokio::test]
async fn big_bodies_pass_both_ways() {
    let world = World::new().await;
    world.serve(
        guest(|mut stream| async move {
            until(&mut stream, "\r\n\r\n").await;
            let mut body = vec![0; BIG];
            stream.read_exact(&mut body).await.unwrap();
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n").as_bytes()).await.unwrap();
            stream.write_all(&body).await.unwrap();
        })
        .await,
    );
    let mut stream = world.tls().await;
    stream.write_all(post(&world, &format!("Content-Length: {BIG}\r\n")).as_bytes()).await.unwrap();
    let sent: Vec<u8> = (0..BIG).map(|index| (index % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    until(&mut stream, "\r\n\r\n").await;
    let mut body = vec![0; BIG];
    soon(stream.read_exact(&mut body)).await.unwrap();
    assert!(body == sent);
}

#[tokio::test]
async fn a_client_may_wait_for_100_continue() {
    let world = World::new().await;
    world.serve(
        guest(|mut stream| async move {
            until(&mut stream, "\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
            until(&mut stream, "body").await;
            stream.write_all(OK.as_bytes()).await.unwrap();
        })
        .await,
    );
    let mut stream = world.tls().await;
    stream.write_all(post(&world, "Content-Length: 4\r\nExpect: 100-continue\r\n").as_bytes()).await.unwrap();
    assert!(until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    stream.write_all(b"body").await.unwrap();
    assert!(until(&mut stream, "\r\n\r\nok").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_refusal_is_read_although_the_upload_goes_on() {
    let world = World::new().await;
    let mut stream = world.tls().await;
    stream.write_all(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {BIG}\r\n\r\n").as_bytes()).await.unwrap();
    let upload = vec![0; 4 << 20];
    stream.write_all(&upload).await.unwrap();
    stream.flush().await.unwrap();
    assert!(until(&mut stream, "}").await.starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn trailers_pass() {
    let world = World::new().await;
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let (guest, _heads) = canned(answer).await;
    world.serve(guest);
    let response = world.get_in("TE: trailers").await;
    assert!(response.ends_with("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n"), "{response}");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_completed() {
    let world = World::new().await;
    for broken in ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let (guest, _heads) = canned(broken).await;
        world.serve(guest);
        let mut stream = world.tls().await;
        stream.write_all(post(&world, "Content-Length: 0\r\n").as_bytes()).await.unwrap();
        until(&mut stream, "abc").await;
        let mut left = Vec::new();
        let ended = soon(stream.read_to_end(&mut left)).await;
        assert!(ended.is_err(), "TLS tells a truncation from an end");
        assert!(!String::from_utf8_lossy(&left).contains('0'), "{left:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_is_gone_for_the_application() {
    let world = World::new().await;
    let (told, mut tells) = mpsc::unbounded_channel();
    world.serve(
        guest(move |mut stream| {
            let told = told.clone();
            async move {
                let head = until(&mut stream, "\r\n\r\n").await;
                told.send("begun").unwrap();
                if head.starts_with("POST") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc").await.unwrap();
                }
                let mut byte = [0];
                assert!(!matches!(stream.read(&mut byte).await, Ok(1)));
                told.send("gone").unwrap();
            }
        })
        .await,
    );
    for method in ["GET", "POST"] {
        let mut stream = world.tls().await;
        stream.write_all(post(&world, "Content-Length: 0\r\n").replace("POST", method).as_bytes()).await.unwrap();
        assert_eq!(soon(tells.recv()).await, Some("begun"));
        if method == "POST" {
            until(&mut stream, "abc").await;
        }
        drop(stream);
        assert_eq!(soon(tells.recv()).await, Some("gone"), "{method}");
    }
}

#[tokio::test]
async fn a_request_in_progress_keeps_the_microvm_awake() {
    let mut config = loopback();
    config.limits.touch_every = Duration::from_millis(20);
    let world = World::with(config).await;
    let (go, gone) = tokio::sync::watch::channel(false);
    world.serve(
        guest(move |mut stream| {
            let mut gone = gone.clone();
            async move {
                until(&mut stream, "\r\n\r\n").await;
                gone.wait_for(|gone| *gone).await.unwrap();
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
        })
        .await,
    );
    let mut stream = world.tls().await;
    stream.write_all(post(&world, "Content-Length: 0\r\n").as_bytes()).await.unwrap();
    soon(async {
        while world.counts().1 < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    go.send(true).unwrap();
    until(&mut stream, "ok").await;
}
