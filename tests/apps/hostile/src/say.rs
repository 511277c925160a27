//! Reports, written byte by byte to the serial port, whatever state an attack has left it in.

use std::sync::{Mutex, PoisonError};

use crate::sys::{Width, port_out};

const DATA: u16 = 0x3f8;
const INTERRUPTS: u16 = DATA + 1;
const LINE: u16 = DATA + 3;
const MODEM: u16 = DATA + 4;
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) fn say(text: &str) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    // Eight bits, no divisor, no loop back.
    for (port, value) in [(LINE, 3), (INTERRUPTS, 0), (MODEM, 0)] {
        port_out(port, Width::Byte, value);
    }
    for byte in format!("\r\nhostile: {text}\r\n").bytes() {
        port_out(DATA, Width::Byte, byte.into());
    }
}
