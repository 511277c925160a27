//! The endpoints by path.

use std::hint::black_box;
use std::io::{self, Read, Write};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::http::Request;
use crate::json::Json;
use crate::server::Answer;
use crate::{Probe, files, lock, network, speed, system};

const MIB: u64 = 1 << 20;

pub(crate) fn answer(probe: &Probe, request: &Request, length: Option<u64>, body: &mut dyn Read) -> Answer {
    if let Some(name) = request.path.strip_prefix("/files/") {
        return if request.method == "GET" { files::read(name) } else { files::write(name, body, request.argument("sync").is_some()) };
    }
    match request.path.as_str() {
        "/" => Answer::json([("application", "probe".into())]),
        "/boot-id" => system::boot_id(),
        "/hostname" => system::hostname(),
        "/clock" => system::clock(probe),
        "/urandom" => system::urandom(),
        "/env" => system::environment(),
        "/caps" => system::capabilities(),
        "/interrupts" => system::interrupts(),
        "/nameserver" => system::resolver(),
        "/connect" => network::connect(request),
        "/udp" => network::udp(request),
        "/resolve" => network::resolve(request),
        "/sampler" => Answer::Json(200, probe.sampler.jumps()),
        "/sampler/hot" => Answer::Json(200, probe.sampler.without_pause(Duration::from_millis(request.number("ms", 1000)))),
        "/ticker" => Answer::Json(200, probe.ticker.to_json()),
        "/ticker/reset" => {
            probe.ticker.reset();
            Answer::Json(200, probe.ticker.to_json())
        }
        "/hold" => probe.held.open(request).map_or_else(|error| Answer::failed(500, error), |opened| Answer::Json(200, opened)),
        "/held" => Answer::Json(200, probe.held.to_json()),
        "/urandom-log" | "/time-samples" => Answer::json([("samples", probe.sampler.last(request.number("last", u64::MAX)))]),
        "/touch" => Answer::Json(200, lock(&probe.touched).touch(request.number("mib", 1))),
        "/touched" => Answer::Json(200, lock(&probe.touched).verify()),
        "/counter" => counter(probe, request.number("add", 1)),
        "/run-payload" => Answer::json([("body", lock(&probe.hooks).run_body().into())]),
        "/hooks" => Answer::json([("hooks", lock(&probe.hooks).to_json())]),
        "/headers" => headers(request),
        "/echo" => Answer::Stream(length, Box::new(echo)),
        "/stream" => stream(request.number("chunks", 3), Duration::from_millis(request.number("interval_ms", 100))),
        "/disk" => speed::disk(request),
        "/transfer" => speed::transfer(request),
        "/big" => big(request.number("mib", 1)),
        "/spin" => spin(Duration::from_millis(request.number("ms", 100)), request.argument("background").is_some()),
        "/print" => print(request),
        "/exit" => exit(request.number("code", 0)),
        path => Answer::failed(404, format!("no endpoint {path:?}")),
    }
}

/// Adds, then tells.
fn counter(probe: &Probe, add: u64) -> Answer {
    Answer::json([("counter", (probe.counter.fetch_add(add, Ordering::Relaxed) + add).into())])
}

fn headers(request: &Request) -> Answer {
    let pairs = request.headers.iter().map(|(name, value)| Json::List(vec![name.as_str().into(), value.as_str().into()]));
    Answer::json([
        ("method", request.method.as_str().into()),
        ("target", request.target.as_str().into()),
        ("version", request.version.as_str().into()),
        ("headers", Json::List(pairs.collect())),
    ])
}

/// Gives every piece of the body back before it waits for the next.
fn echo(body: &mut dyn Read, out: &mut dyn Write) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        match body.read(&mut buffer)? {
            0 => return Ok(()),
            count => out.write_all(&buffer[..count])?,
        }
    }
}

/// Lines `chunk 0`, `chunk 1`, ... with a pause in between.
fn stream(chunks: u64, interval: Duration) -> Answer {
    Answer::Stream(
        None,
        Box::new(move |_, out| {
            for index in 0..chunks {
                if index > 0 {
                    thread::sleep(interval);
                }
                out.write_all(format!("chunk {index}\n").as_bytes())?;
            }
            Ok(())
        }),
    )
}

/// A body whose every byte at offset n is n modulo 251, so that a lost or repeated piece shows.
fn big(mib: u64) -> Answer {
    let length = mib.saturating_mul(MIB);
    Answer::Stream(
        Some(length),
        Box::new(move |_, out| {
            let pattern: Vec<u8> = (0..251_u8).cycle().take(251 * 256).collect();
            let mut left = length;
            while left > 0 {
                let count = left.min(pattern.len() as u64);
                out.write_all(&pattern[..usize::try_from(count).unwrap_or(pattern.len())])?;
                left -= count;
            }
            Ok(())
        }),
    )
}

/// Keeps a processor busy, in the background if nobody is to wait for it.
fn spin(time: Duration, background: bool) -> Answer {
    if background {
        thread::spawn(move || keep_busy(time));
        return Answer::json([("rounds", 0_u64.into())]);
    }
    Answer::json([("rounds", keep_busy(time).into())])
}

fn keep_busy(time: Duration) -> u64 {
    let start = Instant::now();
    let mut rounds = 0_u64;
    while start.elapsed() < time {
        rounds = black_box(rounds) + 1;
    }
    rounds
}

/// Writes `line` to standard output, or with `to=stderr` to standard error.
fn print(request: &Request) -> Answer {
    let line = request.argument("line").unwrap_or_default();
    if request.argument("to") == Some("stderr") {
        eprintln!("{line}");
    } else {
        println!("{line}");
    }
    Answer::json([("printed", line.into())])
}

fn exit(code: u64) -> Answer {
    Answer::ExitAfter(Json::Object(vec![("exiting".into(), code.into())]), i32::try_from(code).unwrap_or(1))
}
