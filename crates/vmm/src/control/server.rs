//! The monitor's main thread: waits for requests, carries them out one after the other.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use kvm_ioctls::Kvm;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::channel::{Channel, Received};
use super::message::{Answer, Call, MachineSpec, Request};
use super::request::{Common, Descriptors, RequestError, RestoreFiles, check_vcpus};
use crate::builder;
use crate::devices::Ring;
use crate::log::{say, with_causes};
use crate::machine::{Machine, MachineError};
use crate::memory::working_set::Touched;
use crate::steps::Steps;
use crate::vm::EmptyVm;

/// A daemon has one connection, or two while it is replaced.
const MAX_CHANNELS: usize = 4;

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("there is no machine yet")]
    NoMachine,
    #[error("there is a machine already")]
    HasMachine,
    #[error("the machine is not paused")]
    NotPaused,
    #[error("the machine has no balloon")]
    NoBalloon,
}

impl From<crate::vm::VmError> for ServeError {
    fn from(error: crate::vm::VmError) -> Self {
        Self::Machine(error.into())
    }
}

/// What the monitor has so far.
enum Held {
    Nothing,
    Prepared(Box<EmptyVm>),
    Machine(Box<Machine>),
}

struct Server {
    kvm: Kvm,
    held: Held,
    /// Until a machine has it.
    ring: Option<Ring>,
    listener: Option<UnixListener>,
    /// What of a running machine's memory is to be put in place when nothing else is to be done.
    later: VecDeque<Touched>,
    /// What the process has done before it was asked for anything: part of its first answer.
    before: Option<Steps>,
}

/// Serves the daemon until the process ends. Without a machine it ends when the daemon goes away.
pub(crate) fn serve(kvm: Kvm, first: UnixStream, ring: Option<Ring>, before: Steps) -> io::Result<()> {
    let mut server = Server { kvm, held: Held::Nothing, ring, listener: None, later: VecDeque::new(), before: Some(before) };
    let mut channels = vec![Channel::new(first)?];
    loop {
        let patience = if server.later.is_empty() { PollTimeout::NONE } else { PollTimeout::ZERO };
        let (ready, new) = wait(&channels, server.listener.as_ref(), patience)?;
        if ready.is_empty() && !new {
            server.read_ahead();
        }
        let mut gone = Vec::new();
        for index in ready {
            if let Err(error) = server.hear(&mut channels[index]) {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    say(&format!("a control connection is closed: {error}"));
                }
                gone.push(index);
            }
        }
        for index in gone.into_iter().rev() {
            channels.remove(index);
        }
        if new && let Some((stream, _)) = server.listener.as_ref().and_then(|listener| listener.accept().ok()) {
            if channels.len() == MAX_CHANNELS {
                channels.remove(0);
            }
            channels.push(Channel::new(stream)?);
        }
        if channels.is_empty() && !matches!(server.held, Held::Machine(_)) {
            return Ok(());
        }
    }
}

/// Which channels have something, and whether somebody new has come.
fn wait(channels: &[Channel], listener: Option<&UnixListener>, patience: PollTimeout) -> io::Result<(Vec<usize>, bool)> {
    let mut polled: Vec<_> = channels.iter().map(|channel| PollFd::new(channel.fd().as_fd(), PollFlags::POLLIN)).collect();
    polled.extend(listener.map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
    match poll(&mut polled, patience) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error.into()),
    }
    let ready = |polled: &PollFd<'_>| polled.any().unwrap_or(false);
    let new = listener.is_some() && polled.last().is_some_and(ready);
    Ok((polled[..channels.len()].iter().enumerate().filter(|(_, polled)| ready(polled)).map(|(index, _)| index).collect(), new))
}

impl Server {
    /// An error closes the channel.
    fn hear(&mut self, channel: &mut Channel) -> io::Result<()> {
        match channel.receive()? {
            Received::More => Ok(()),
            Received::Closed => Err(io::ErrorKind::UnexpectedEof.into()),
            Received::Nonsense(reason) => channel.answer(&Answer::Failed { reason }),
            Received::Call(call, descriptors) => {
                let answer = self.perform(call, descriptors).unwrap_or_else(|error| Answer::Failed { reason: with_causes(&error) });
                channel.answer(&answer)
            }
        }
    }

    fn perform(&mut self, call: Call, descriptors: Vec<OwnedFd>) -> Result<Answer, ServeError> {
        let mut steps = self.before.take().map_or_else(Steps::start, Steps::go_on);
        let mut descriptors = Descriptors::new(descriptors);
        match call.request {
            Request::Boot { machine, command_line } => self.boot(machine, &command_line, descriptors, &mut steps)?,
            Request::Restore { machine, layered, working_set } => {
                let (common, files) = descriptors.restore(machine, layered, working_set)?;
                self.restore(common, files, &mut steps)?;
            }
            Request::SaveState => {
                let file = descriptors.next()?.into();
                descriptors.end()?;
                let machine = self.machine()?;
                if !machine.is_paused() {
                    return Err(ServeError::NotPaused);
                }
                machine.save(&file)?;
            }
            other => {
                descriptors.end()?;
                return self.perform_alone(other, steps);
            }
        }
        steps.mark("rest");
        Ok(Answer::Done { steps: steps.finish() })
    }

    /// Requests without descriptors.
    fn perform_alone(&mut self, request: Request, mut steps: Steps) -> Result<Answer, ServeError> {
        match request {
            Request::Prepare { vcpus } => self.prepare(vcpus, &mut steps)?,
            Request::Pause => self.machine()?.pause(&mut steps)?,
            Request::Resume => self.machine()?.resume(),
            Request::Balloon { pages } => {
                if !self.machine()?.ask_for_pages(pages) {
                    return Err(ServeError::NoBalloon);
                }
            }
            Request::Stats => return self.machine().map(|machine| Answer::Stats(machine.stats())),
            Request::Boot { .. } | Request::Restore { .. } | Request::SaveState => return Err(RequestError::Descriptors.into()),
        }
        Ok(Answer::Done { steps: steps.finish() })
    }

    fn machine(&mut self) -> Result<&mut Machine, ServeError> {
        match &mut self.held {
            Held::Machine(machine) => Ok(machine),
            _ => Err(ServeError::NoMachine),
        }
    }

    fn prepare(&mut self, vcpus: u8, steps: &mut Steps) -> Result<(), ServeError> {
        check_vcpus(vcpus)?;
        let Held::Nothing = self.held else { return Err(ServeError::HasMachine) };
        self.held = Held::Prepared(Box::new(EmptyVm::create(&self.kvm, vcpus, steps)?));
        Ok(())
    }

    fn boot(&mut self, spec: MachineSpec, command_line: &str, fds: Descriptors, steps: &mut Steps) -> Result<(), ServeError> {
        let (mut common, files) = fds.boot(spec)?;
        let vm = self.take_vm(common.vcpus, steps)?;
        self.listener = Some(common.take_listener()?);
        common.ring = self.ring.take();
        let machine = builder::boot(vm, common, files, command_line, steps)?;
        self.start(machine, steps);
        Ok(())
    }

    fn restore(&mut self, mut common: Common, files: RestoreFiles, steps: &mut Steps) -> Result<(), ServeError> {
        let vm = self.take_vm(common.vcpus, steps)?;
        self.listener = Some(common.take_listener()?);
        common.ring = self.ring.take();
        let (machine, later) = builder::restore(vm, common, files, steps)?;
        self.later = later.into();
        self.start(machine, steps);
        Ok(())
    }

    fn read_ahead(&mut self) {
        if let (Held::Machine(machine), Some(pages)) = (&self.held, self.later.pop_front()) {
            machine.read_ahead(pages);
        }
    }

    fn start(&mut self, mut machine: Machine, steps: &mut Steps) {
        machine.resume();
        steps.mark("run");
        self.held = Held::Machine(Box::new(machine));
    }

    fn take_vm(&mut self, vcpus: u8, steps: &mut Steps) -> Result<EmptyVm, ServeError> {
        let prepared = match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => None,
            Held::Prepared(vm) => Some(*vm),
            machine @ Held::Machine(_) => {
                self.held = machine;
                return Err(ServeError::HasMachine);
            }
        };
        Ok(builder::empty_vm(&self.kvm, prepared, vcpus, steps)?)
    }
}
