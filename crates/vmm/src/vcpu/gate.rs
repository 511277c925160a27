//! Where vCPU threads wait while the machine is paused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use crate::devices::lock;

pub(super) struct Gate {
    /// Read by threads between two instructions of the guest; changed with `parked` locked.
    open: AtomicBool,
    parked: Mutex<usize>,
    changed: Condvar,
    threads: usize,
}

impl Gate {
    pub(super) fn new(threads: usize) -> Self {
        Self { open: AtomicBool::new(false), parked: Mutex::new(0), changed: Condvar::new(), threads }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    pub(super) fn open(&self) {
        let _parked = lock(&self.parked);
        self.open.store(true, Ordering::Release);
        self.changed.notify_all();
    }

    pub(super) fn close(&self) {
        let _parked = lock(&self.parked);
        self.open.store(false, Ordering::Release);
    }

    /// Waits at the gate until it is open.
    pub(super) fn park(&self) {
        let mut parked = lock(&self.parked);
        *parked += 1;
        self.changed.notify_all();
        while !self.is_open() {
            parked = self.changed.wait(parked).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *parked -= 1;
    }

    /// True when all threads wait; false when some still do not after `patience`.
    pub(super) fn wait_all_parked(&self, patience: Duration) -> bool {
        let parked = lock(&self.parked);
        let waited = self.changed.wait_timeout_while(parked, patience, |parked| *parked < self.threads);
        *waited.unwrap_or_else(std::sync::PoisonError::into_inner).0 == self.threads
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn nobody_passes_a_closed_gate() {
        let (gate, steps) = (Arc::new(Gate::new(3)), Arc::new(AtomicUsize::new(0)));
        for _ in 0..3 {
            let (gate, steps) = (gate.clone(), steps.clone());
            std::thread::spawn(move || {
                loop {
                    gate.park();
                    while gate.is_open() {
                        steps.fetch_add(1, Ordering::Relaxed);
                        std::thread::yield_now();
                    }
                }
            });
        }
        for _ in 0..20 {
            gate.open();
            std::thread::sleep(Duration::from_micros(200));
            gate.close();
            while !gate.wait_all_parked(Duration::from_millis(50)) {}
            let stood = steps.load(Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(200));
            assert_eq!(steps.load(Ordering::Relaxed), stood);
        }
        assert!(steps.load(Ordering::Relaxed) > 0);
    }
}
