//! Ports of the PC that a Linux guest still uses: the first serial port, written by the kernel's log, and the keyboard controller's reset line.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial, SerialState};
use vmm_sys_util::eventfd::EventFd;

use crate::arch::layout::{RESET_COMMAND, RESET_PORT, SERIAL_PORTS};

/// What a write to a port asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortWrite {
    Done,
    Reset,
}

/// All ports there are. Others read as ones and swallow what is written.
pub(crate) struct Ports {
    serial: Serial<Line, NoEvents, Log>,
}

impl Ports {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { serial: Serial::new(Line::new()?, Log) })
    }

    pub(crate) fn line(&self) -> &EventFd {
        &self.serial.interrupt_evt().0
    }

    pub(crate) fn read(&mut self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match data {
            [byte] if SERIAL_PORTS.contains(&port) => *byte = self.serial.read((port - SERIAL_PORTS.start) as u8),
            // Its input buffer is empty: whoever wants to reset the machine need not wait.
            [byte] if port == RESET_PORT => *byte = 0,
            _ => {}
        }
    }

    pub(crate) fn write(&mut self, port: u16, data: &[u8]) -> PortWrite {
        match data {
            [RESET_COMMAND] if port == RESET_PORT => return PortWrite::Reset,
            [byte] if SERIAL_PORTS.contains(&port) => {
                // An interrupt that cannot be raised, or a log that nobody reads, is not the guest's affair.
                let _ = self.serial.write((port - SERIAL_PORTS.start) as u8, *byte);
            }
            _ => {}
        }
        PortWrite::Done
    }

    pub(crate) fn save(&self) -> SerialRecord {
        let state = self.serial.state();
        SerialRecord {
            registers: [
                state.baud_divisor_low,
                state.baud_divisor_high,
                state.interrupt_enable,
                state.interrupt_identification,
                state.line_control,
                state.line_status,
                state.modem_control,
                state.modem_status,
                state.scratch,
            ],
        }
    }

    pub(crate) fn load(&mut self, record: &SerialRecord) -> io::Result<()> {
        let [low, high, enable, identification, line_control, line_status, modem_control, modem_status, scratch] = record.registers;
        let state = SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            // Nobody types at a MicroVM's console.
            in_buffer: Vec::new(),
        };
        // Raising its interrupt is part of making it anew: on a line of its own, that KVM is told of afterwards.
        let line = Line(self.line().try_clone()?);
        self.serial = Serial::from_state(&state, line, NoEvents, Log).map_err(|error| io::Error::other(format!("{error:?}")))?;
        Ok(())
    }
}

/// The serial port in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SerialRecord {
    registers: [u8; 9],
}

struct Line(EventFd);

impl Line {
    fn new() -> io::Result<Self> {
        EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC).map(Self)
    }
}

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Standard output, which the daemon keeps the last of. When nobody reads, what is written is lost: a guest must not wait for the daemon.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not through `Stdout`, which would hold a line back.
        nix::unistd::write(io::stdout(), bytes).map_err(Into::into)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn any_access_is_answered() {
        let mut ports = Ports::new().unwrap();
        for port in [0, 0x3f7, 0x3f8, 0x3fd, 0x400, RESET_PORT, u16::MAX] {
            for length in [1, 2, 4] {
                let mut data = vec![0x55; length];
                ports.read(port, &mut data);
                assert_eq!(ports.write(port, &data), PortWrite::Done);
            }
        }
        assert_eq!(ports.write(RESET_PORT, &[RESET_COMMAND]), PortWrite::Reset);
    }

    #[test]
    fn the_serial_port_comes_back_as_it_was() {
        let mut ports = Ports::new().unwrap();
        ports.write(0x3fb, &[0x03]);
        ports.write(0x3ff, &[0x5a]);
        let record = ports.save();
        let mut other = Ports::new().unwrap();
        other.load(&record).unwrap();
        assert_eq!(other.save(), record);
        let mut scratch = [0];
        other.read(0x3ff, &mut scratch);
        assert_eq!(scratch, [0x5a]);
    }
}
