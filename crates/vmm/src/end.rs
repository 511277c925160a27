//! The end of the machine is the end of its process: nothing of it is worth tidying up.

use crate::log::say;

/// The guest has reset or stopped itself.
pub(crate) fn by_guest(how: &str) -> ! {
    say(&format!("the guest {how}"));
    std::process::exit(0)
}

/// The machine cannot go on.
pub(crate) fn now(why: &str) -> ! {
    say(why);
    std::process::exit(1)
}
