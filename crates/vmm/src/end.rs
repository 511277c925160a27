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

/// A panic on any thread ends the process, with where it was and nothing of what was looked at: a machine that lost one of its threads would neither work nor
/// pause, and its daemon would wait.
pub(crate) fn with_a_panic() {
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => now(&format!("a bug in the monitor: panicked at {}:{}", place.file(), place.line())),
        None => now("a bug in the monitor: panicked"),
    }));
}
