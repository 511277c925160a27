//! Threads that run the guest's instructions, one for each vCPU, and the gate that stops them all.
//!
//! ```text
//! parked ──let go──▶ running ──pause──▶ kicked out of KVM ──pending access completed──▶ parked
//! ```
//! A parked thread holds no lock: whoever has paused the machine reads and writes the vCPU itself. Threads start parked and end with the process.

mod gate;
pub(crate) mod prefault;
mod run;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::devices::Bus;
use crate::jail::seccomp::{self, ThreadKind};
use gate::Gate;

/// A kick that comes just before the thread enters KVM is lost: after this it is kicked again, and then after twice as long each time, for where the host is
/// short of CPU being kicked is all that a thread would come to.
const KICK_AGAIN: Duration = Duration::from_millis(1);
const KICK_AGAIN_AT_LEAST: Duration = Duration::from_millis(250);

/// All vCPUs of a machine.
pub(crate) struct Vcpus {
    vcpus: Vec<Vcpu>,
    gate: Arc<Gate>,
    bus: Arc<OnceLock<Bus>>,
}

struct Vcpu {
    fd: Arc<Mutex<VcpuFd>>,
    thread: JoinHandle<()>,
}

impl Vcpus {
    /// Starts a parked thread for each.
    pub(crate) fn start(fds: Vec<VcpuFd>) -> io::Result<Self> {
        register_signal_handler(kick_signal(), on_kick).map_err(|error| io::Error::from_raw_os_error(error.errno()))?;
        let gate = Arc::new(Gate::new(fds.len()));
        let bus = Arc::new(OnceLock::new());
        let start = |(id, fd)| {
            let fd = Arc::new(Mutex::new(fd));
            let (own, gate, bus) = (fd.clone(), gate.clone(), bus.clone());
            let thread = std::thread::Builder::new().name(format!("vcpu{id}")).spawn(move || life(&own, &gate, &bus))?;
            Ok(Vcpu { fd, thread })
        };
        let vcpus = fds.into_iter().enumerate().map(start).collect::<io::Result<_>>()?;
        Ok(Self { vcpus, gate, bus })
    }

    pub(crate) fn count(&self) -> u8 {
        u8::try_from(self.vcpus.len()).unwrap_or(u8::MAX)
    }

    /// Each vCPU in turn. Waits for a thread that runs: only for machines that are paused.
    pub(crate) fn each(&self) -> impl Iterator<Item = (u8, MutexGuard<'_, VcpuFd>)> {
        (0u8..).zip(self.vcpus.iter().map(|vcpu| crate::devices::lock(&vcpu.fd)))
    }

    /// Tells the threads where accesses outside RAM go. Once, before they are let go.
    pub(crate) fn attach(&self, bus: Bus) -> &Bus {
        self.bus.get_or_init(|| bus)
    }

    pub(crate) fn bus(&self) -> Option<&Bus> {
        self.bus.get()
    }

    pub(crate) fn run(&self) {
        self.gate.open();
    }

    /// Returns when none of them executes an instruction any more.
    pub(crate) fn pause(&self) {
        self.gate.close();
        let mut patience = KICK_AGAIN;
        loop {
            for vcpu in &self.vcpus {
                kick(&vcpu.thread);
            }
            if self.gate.wait_all_parked(patience) {
                return;
            }
            patience = KICK_AGAIN_AT_LEAST.min(patience * 2);
        }
    }
}

/// Takes a thread out of KVM.
fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

fn kick(thread: &JoinHandle<()>) {
    if let Err(error) = thread.kill(kick_signal()) {
        crate::end::now(&format!("a vCPU could not be stopped: {error}"));
    }
}

/// Being interrupted is all there is to it.
extern "C" fn on_kick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

fn life(fd: &Mutex<VcpuFd>, gate: &Gate, bus: &OnceLock<Bus>) {
    if let Err(error) = seccomp::confine(ThreadKind::Vcpu) {
        crate::end::now(&format!("a vCPU's thread could not be confined: {error}"));
    }
    // What KVM makes at the first entry is made before a guest waits for it: a thread that splits huge pages, on some kernels.
    run::enter_and_leave(&mut crate::devices::lock(fd));
    loop {
        gate.park();
        let Some(bus) = bus.get() else { continue };
        let mut fd = crate::devices::lock(fd);
        while gate.is_open() {
            run::step(&mut fd, bus);
        }
        // The answer to the last access counts as given only when the vCPU is entered again.
        run::enter_and_leave(&mut fd);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_kick_ends_the_system_call_that_a_thread_waits_in() {
        register_signal_handler(kick_signal(), on_kick).unwrap();
        let (tell, ended) = channel();
        let thread = std::thread::spawn(move || {
            let waited = nix::poll::poll(&mut [], nix::poll::PollTimeout::NONE);
            tell.send(waited).unwrap();
        });
        let waited = (0..1000).find_map(|_| {
            kick(&thread);
            ended.recv_timeout(Duration::from_millis(10)).ok()
        });
        assert_eq!(waited, Some(Err(nix::errno::Errno::EINTR)));
    }
}
