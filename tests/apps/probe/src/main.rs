//! The application of the lifecycle tests: obedient or hostile as its environment says, and able to tell what it sees.
//!
//! It serves HTTP/1.1 on port 8080, a thread per connection, and a second listener on 9090. README.md beside this crate lists the variables
//! and the endpoints. It must never smooth over what it is there to show: no retries, no caches, no name service switch.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod endpoints;
mod files;
mod held;
mod hooks;
mod http;
mod json;
mod memory;
mod network;
mod sampler;
mod server;
mod speed;
mod system;
mod ticker;

use std::io;
use std::net::TcpListener;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use held::Held;
use hooks::{Behaviours, HookLog};
use memory::Touched;
use sampler::Sampler;
use ticker::Ticker;

const PORT: u16 = 8080;
const SECOND_PORT: u16 = 9090;
/// What `PROBE_READY=exit` ends with.
const EXIT_AS_ASKED: i32 = 7;

/// Everything the endpoints share; it lives in memory alone, so that a restored copy shows whether memory survived.
pub(crate) struct Probe {
    pub(crate) started: Instant,
    pub(crate) behaviours: Behaviours,
    pub(crate) hooks: Mutex<HookLog>,
    pub(crate) counter: AtomicU64,
    pub(crate) touched: Mutex<Touched>,
    pub(crate) sampler: Sampler,
    pub(crate) held: Held,
    pub(crate) ticker: Ticker,
}

fn main() -> io::Result<()> {
    let behaviours = Behaviours::from_environment();
    if behaviours.exits_at_start() {
        eprintln!("probe: exiting as asked");
        std::process::exit(EXIT_AS_ASKED);
    }
    let probe = Arc::new(Probe {
        started: Instant::now(),
        behaviours,
        hooks: Mutex::default(),
        counter: AtomicU64::new(0),
        touched: Mutex::default(),
        sampler: Sampler::start()?,
        held: Held::default(),
        ticker: Ticker::start()?,
    });
    let second = TcpListener::bind(("0.0.0.0", SECOND_PORT))?;
    thread::Builder::new().name("second-port".into()).spawn(move || server::serve(&second, &server::second_port()))?;
    let first = TcpListener::bind(("0.0.0.0", PORT))?;
    println!("probe: listening on {PORT}");
    server::serve(&first, &server::first_port(probe));
    Ok(())
}

/// Whether nothing is to happen that nobody asks for: no sampler, no ticker.
pub(crate) fn is_quiet() -> bool {
    std::env::var("PROBE_SAMPLER").as_deref() == Ok("off")
}

/// A poisoned lock is of no concern: whatever a panicking handler left is what the tests should see.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
