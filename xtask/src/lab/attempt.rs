//! One boot of the outer machine, from power on to whatever ends it.

use std::path::Path;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::interrupt::Interrupts;
use super::machine::{Hardware, Machine};
use super::ports::{Listeners, Ports, Said};

/// Four seconds on a quiet machine.
const BOOTS_WITHIN: Duration = Duration::from_secs(150);
/// It beats every two seconds. A machine that has been silent for this long does not come back: emulated machines with guests of their own freeze
/// now and then.
const FROZEN_AFTER: Duration = Duration::from_secs(60);
const TURNS_OFF_WITHIN: Duration = Duration::from_secs(15);
/// How often interrupts and deadlines are looked at.
const PULSE: Duration = Duration::from_millis(200);

pub(super) enum Ending {
    Exited(u8),
    /// The command asked for a power cut and got it.
    Cut,
    Reboot,
    DeadlinePassed,
    Interrupted,
    /// The machine is to blame, not the command.
    Lost {
        how: &'static str,
    },
}

pub(super) struct Attempt<'a> {
    pub hardware: Hardware<'a>,
    pub scratch: &'a Path,
    pub out: &'a Path,
    pub deadline: Instant,
    pub interrupts: &'a Interrupts,
}

impl Attempt<'_> {
    pub(super) fn run(self) -> anyhow::Result<Ending> {
        let listeners = Listeners::bind(self.scratch).context("making the ports' sockets")?;
        let mut machine = Machine::start(&self.hardware, &listeners, self.scratch)?;
        let ports = listeners.serve(self.out);
        let ending = self.watch(&mut machine, &ports);
        match &ending {
            // It has synced and turns itself off; by then all it printed is here.
            Ending::Exited(_) => machine.end(TURNS_OFF_WITHIN),
            _ => drop(machine),
        }
        if !matches!(ending, Ending::Lost { .. }) {
            ports.drain()?;
        }
        Ok(ending)
    }

    fn watch(&self, machine: &mut Machine, ports: &Ports) -> Ending {
        let mut silent_until = Instant::now() + BOOTS_WITHIN;
        loop {
            let said = ports.said.recv_timeout(PULSE);
            match said {
                Ok(Said::Ready | Said::Beat) => silent_until = Instant::now() + FROZEN_AFTER,
                Ok(Said::Exit(status)) => return Ending::Exited(status),
                Ok(Said::Cut) => return Ending::Cut,
                Ok(Said::Reboot) => return Ending::Reboot,
                Ok(Said::Failed) => return Ending::Lost { how: "the machine could not be prepared" },
                Ok(Said::Closed) | Err(RecvTimeoutError::Disconnected) => return Ending::Lost { how: "the machine ended without a word" },
                // QEMU that could not start never connects its ports.
                Err(RecvTimeoutError::Timeout) if machine.has_ended() => return Ending::Lost { how: "QEMU ended" },
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.interrupts.came() {
                return Ending::Interrupted;
            }
            if Instant::now() > self.deadline {
                return Ending::DeadlinePassed;
            }
            if Instant::now() > silent_until {
                return Ending::Lost { how: "the machine froze, or did not come up" };
            }
        }
    }
}
