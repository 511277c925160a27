//! SIGINT and SIGTERM become a flag that is asked: the machine and its files must go before we do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, Signal};

#[derive(Clone)]
pub(super) struct Interrupts(Arc<AtomicBool>);

impl Interrupts {
    pub(super) fn came(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Must be called before other threads are started: they inherit what is blocked. Children do not.
pub(super) fn catch() -> io::Result<Interrupts> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    let interrupts = Interrupts(Arc::new(AtomicBool::new(false)));
    let told = interrupts.clone();
    // Lives as long as the process.
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            told.0.store(true, Ordering::Relaxed);
        }
    });
    Ok(interrupts)
}
