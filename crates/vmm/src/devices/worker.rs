//! Threads that let devices work: one for each disk, whose files may keep it waiting, and one for all others.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::bus::lock;
use super::virtio::{TURN, Transport, Wake};
use crate::jail::seccomp::{self, ThreadKind};

/// Events taken at once.
const EVENTS: usize = 32;
/// A lock is no queue: who has just let go of it takes it again before those who wait have woken. After a turn that used all of its time they get theirs, for
/// among them may be the pause of the machine, or a vCPU that keeps the pause waiting.
const GIVE_WAY: Duration = Duration::from_micros(500);

/// Names of threads.
pub(crate) const DISK: &str = "disk";
pub(crate) const DEVICES: &str = "devices";

/// The threads of a machine's devices. They end with the process.
pub(crate) struct Workers {
    /// Confined, without devices: confining a thread takes longer than the rest of its start.
    waiting: Vec<(&'static str, Sender<Worker>)>,
}

impl Workers {
    /// Starts threads of these names, which wait for their devices.
    pub(crate) fn prepare(names: &[&'static str]) -> io::Result<Self> {
        Ok(Self { waiting: names.iter().map(|name| Ok((*name, spawn(name)?))).collect::<io::Result<_>>()? })
    }

    /// Gives each group of devices a thread of its name.
    pub(crate) fn start(&mut self, groups: Vec<(&'static str, Vec<Arc<Mutex<Transport>>>)>) -> io::Result<()> {
        for (name, devices) in groups {
            let worker = Worker::new(devices)?;
            let waiting = self.waiting.iter().position(|(waits_as, _)| *waits_as == name).map(|index| self.waiting.swap_remove(index).1);
            let thread = match waiting {
                Some(thread) => thread,
                None => spawn(name)?,
            };
            thread.send(worker).map_err(|_| io::Error::other("a device's thread has ended"))?;
        }
        Ok(())
    }
}

/// A thread that confines itself and then waits for its devices. It ends when none come.
fn spawn(name: &str) -> io::Result<Sender<Worker>> {
    let (give, take) = channel::<Worker>();
    let life = move || {
        if let Err(error) = seccomp::confine(ThreadKind::Device) {
            crate::end::now(&format!("a device's thread could not be confined: {error}"));
        }
        if let Ok(worker) = take.recv() {
            worker.run();
        }
    };
    std::thread::Builder::new().name(name.to_owned()).spawn(life)?;
    Ok(give)
}

struct Worker {
    epoll: Epoll,
    /// What each event's number stands for.
    sources: Vec<(usize, Wake)>,
    devices: Vec<Arc<Mutex<Transport>>>,
}

impl Worker {
    fn new(devices: Vec<Arc<Mutex<Transport>>>) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let mut sources = Vec::new();
        for (index, device) in devices.iter().enumerate() {
            let device = lock(device);
            for (queue, bell) in device.bells().iter().enumerate() {
                watch(&epoll, bell, EventSet::IN, sources.len() as u64)?;
                sources.push((index, Wake::Queue(queue)));
            }
            if let Some(fd) = device.host_fd() {
                // At edges: a device that has no use for what waits there is not woken again and again. It looks again when its queue's bell rings.
                let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, sources.len() as u64);
                epoll.ctl(ControlOperation::Add, fd, event)?;
                sources.push((index, Wake::Host));
            }
        }
        Ok(Self { epoll, sources, devices })
    }

    fn run(self) {
        let mut events = [EpollEvent::default(); EVENTS];
        loop {
            let ready = match self.epoll.wait(-1, &mut events) {
                Ok(ready) => ready,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                Err(error) => crate::end::now(&format!("waiting for devices failed: {error}")),
            };
            for event in &events[..ready] {
                let (device, wake) = self.sources[event.data() as usize];
                let began = Instant::now();
                lock(&self.devices[device]).serve(wake);
                if began.elapsed() >= TURN {
                    std::thread::sleep(GIVE_WAY);
                }
            }
        }
    }
}

fn watch(epoll: &Epoll, bell: &EventFd, events: EventSet, number: u64) -> io::Result<()> {
    epoll.ctl(ControlOperation::Add, bell.as_raw_fd(), EpollEvent::new(events, number))
}
