//! Kinds of attack. Each call is a short burst: they alternate, so that one meets what another has left.

mod chains;
mod lives;
mod registers;
mod requests;

use crate::arena::{Arena, Zone};
use crate::device::{BALLOON, Device};
use crate::dice::Dice;
use crate::sys::Mapping;

/// Who attacks: one thread's share of everything.
pub(crate) struct Attacker {
    pub dice: Dice,
    pub arena: Arena,
    pub registers: Mapping,
    pub devices: Vec<Device>,
}

pub(crate) type Attack = (&'static str, fn(&mut Attacker));

pub(crate) const ALL: [Attack; 8] = [
    ("registers of every width, offset and value", registers::accesses),
    ("ports of every width and value", registers::ports),
    ("a driver's steps in any order, with queues anywhere", lives::any_order),
    ("chains of descriptors that break the rules", chains::broken),
    ("indirect tables in odd places", chains::indirect),
    ("requests of each device that make no sense", requests::nonsense),
    ("rings that change while they are used, and resets under load", lives::changes_under_load),
    ("storms of bells", lives::storms),
];

/// After all others: devices write into any memory.
pub(crate) const LAST: Attack = ("devices that write into any memory", chains::wild);

impl Attacker {
    fn device(&mut self) -> Device {
        self.dice.pick(&self.devices.clone())
    }

    fn zone(&self, device: &Device) -> Zone {
        if device.kind == BALLOON { Zone::Poisoned } else { Zone::Own }
    }
}
