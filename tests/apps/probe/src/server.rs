//! Connections: a thread each, requests one after the other.

use std::io::{self, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::endpoints;
use crate::http::{Body, Chunks, HeadError, Request, write_answer, write_continue, write_head};
use crate::json::{Json, object};
use crate::{Probe, hooks};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";

/// Writes a body as it comes, given the request's body.
type WriteBody = Box<dyn FnOnce(&mut dyn Read, &mut dyn Write) -> io::Result<()>>;

pub(crate) enum Answer {
    Json(u16, Json),
    Bytes(Vec<u8>),
    Text(&'static str),
    /// A body of that length, else in chunks.
    Stream(Option<u64>, WriteBody),
    /// Nothing at all, until the client gives up.
    Silence,
    /// An answer, and then the process ends.
    ExitAfter(Json, i32),
}

impl Answer {
    pub(crate) fn json<const N: usize>(members: [(&str, Json); N]) -> Self {
        Self::Json(200, object(members))
    }

    pub(crate) fn failed(status: u16, why: impl ToString) -> Self {
        Self::Json(status, object([("error", why.to_string().into())]))
    }
}

/// What answers a request, given its body's length if it has one.
pub(crate) type Handler = dyn Fn(&Request, Option<u64>, &mut dyn Read) -> Answer + Send + Sync;

pub(crate) fn first_port(probe: Arc<Probe>) -> Arc<Handler> {
    Arc::new(move |request, length, body| {
        if probe.behaviours.is_silent() {
            return Answer::Silence;
        }
        match request.path.strip_prefix(hooks::PREFIX) {
            Some(hook) if request.method == "POST" => hooks::answer(&probe, hook, body),
            _ => endpoints::answer(&probe, request, length, body),
        }
    })
}

pub(crate) fn second_port() -> Arc<Handler> {
    Arc::new(|_, _, _| Answer::Text("second port"))
}

/// Serves a port for ever.
pub(crate) fn serve(listener: &TcpListener, handler: &Arc<Handler>) {
    for connection in listener.incoming() {
        let handler = handler.clone();
        let served = connection.and_then(|connection| {
            thread::Builder::new().spawn(move || {
                // A broken connection is the client's affair.
                let _ = serve_connection(connection, &*handler);
            })
        });
        if let Err(error) = served {
            eprintln!("probe: no connection: {error}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn serve_connection(mut out: TcpStream, handler: &Handler) -> io::Result<()> {
    out.set_nodelay(true)?;
    let mut connection = BufReader::new(out.try_clone()?);
    loop {
        let request = match Request::read(&mut connection) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(HeadError::Io(error)) => return Err(error),
            Err(HeadError::Malformed(what)) => return write_answer(&mut out, 400, TEXT, what.as_bytes()),
        };
        if request.header_has("expect", "100-continue") {
            write_continue(&mut out)?;
        }
        let mut body = Body::new(&request, &mut connection)?;
        let length = body.length();
        let answer = handler(&request, length, &mut body);
        write(answer, &mut body, &mut out)?;
        io::copy(&mut body, &mut io::sink())?;
        if !request.keeps_connection() {
            return Ok(());
        }
    }
}

fn write(answer: Answer, body: &mut dyn Read, out: &mut TcpStream) -> io::Result<()> {
    match answer {
        Answer::Json(status, json) => write_answer(out, status, JSON, json.to_string().as_bytes()),
        Answer::Bytes(bytes) => write_answer(out, 200, "application/octet-stream", &bytes),
        Answer::Text(text) => write_answer(out, 200, TEXT, text.as_bytes()),
        Answer::Stream(Some(length), write_body) => {
            write_head(out, 200, "application/octet-stream", Some(length))?;
            write_body(body, out)
        }
        Answer::Stream(None, write_body) => {
            write_head(out, 200, "application/octet-stream", None)?;
            let mut chunks = Chunks(out);
            write_body(body, &mut chunks)?;
            chunks.finish()
        }
        Answer::Silence => wait_for_the_end(out),
        Answer::ExitAfter(json, code) => {
            write_answer(out, 200, JSON, json.to_string().as_bytes())?;
            println!("probe: exiting with {code} as asked");
            std::process::exit(code)
        }
    }
}

fn wait_for_the_end(connection: &mut TcpStream) -> io::Result<()> {
    io::copy(connection, &mut io::sink())?;
    Err(io::ErrorKind::ConnectionAborted.into())
}
