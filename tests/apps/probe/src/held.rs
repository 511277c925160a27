//! A connection to the outside that is held open and read from, to see how it ends when the MicroVM is suspended.

use std::io::{self, Read};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::json::{Json, object};
use crate::sampler::unix_seconds;
use crate::{http::Request, lock};

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(crate) struct Held(Arc<Mutex<Vec<Connection>>>);

#[derive(Default)]
struct Connection {
    peer: String,
    bytes: u64,
    /// Why and when the blocked read came back: `end` or the error.
    ended: Option<(String, f64)>,
}

impl Held {
    /// Connects and leaves a thread behind that reads without a timeout.
    pub(crate) fn open(&self, request: &Request) -> io::Result<Json> {
        let text = format!("{}:{}", request.argument("host").unwrap_or_default(), request.number("port", 0));
        let peer: SocketAddr = text.parse().map_err(|_| io::Error::other("host must be an address"))?;
        let mut stream = TcpStream::connect_timeout(&peer, CONNECT_WITHIN)?;
        let index = {
            let mut all = lock(&self.0);
            all.push(Connection { peer: text, ..Connection::default() });
            all.len() - 1
        };
        let all = self.0.clone();
        thread::Builder::new().name("held".into()).spawn(move || {
            let mut buffer = [0; 1024];
            let ended = loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break "end".to_owned(),
                    Ok(count) => lock(&all)[index].bytes += count as u64,
                    Err(error) => break error.to_string(),
                }
            };
            lock(&all)[index].ended = Some((ended, unix_seconds()));
        })?;
        Ok(object([("index", (index as u64).into())]))
    }

    pub(crate) fn to_json(&self) -> Json {
        let all = lock(&self.0);
        let connections = all.iter().map(|connection| {
            let (how, when) = connection.ended.clone().unzip();
            object([
                ("peer", connection.peer.as_str().into()),
                ("bytes", connection.bytes.into()),
                ("ended", how.into()),
                ("wall", when.map_or(Json::Null, Json::Float)),
            ])
        });
        object([("connections", Json::List(connections.collect()))])
    }
}
