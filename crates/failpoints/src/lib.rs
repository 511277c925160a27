//! Named points between the steps of an operation where a test makes something go wrong: an error, a delay, a panic, a step that never ends, or the
//! death of the whole process as by `kill -9`.
//!
//! Each crate lists its points on one page by [`declare!`], in the order of the steps, and passes them by [`Failpoint::pass`] (or
//! [`Failpoint::reach`] where a step cannot fail any more). A point that nobody armed costs one relaxed load of an atomic, so the points are in every
//! build: what is tested is what runs. Only [`from_environment`] arms them in a daemon, and says so.
//!
//! An armed point goes off once.
#![forbid(unsafe_code)]

mod arm;
mod environment;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use arm::{ArmError, arm, disarm_all};
pub use environment::{VARIABLE, from_environment};

/// What happens at an armed point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The step fails. Where it cannot ([`Failpoint::reach`]), nothing happens.
    Error,
    Delay(Duration),
    Panic,
    /// The process ends as by `kill -9`: nothing is cleaned up.
    Kill,
    /// The step never ends, as on a disk that hangs.
    Hang,
}

/// The error of a step that a test made fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("failpoint {name}")]
pub struct Injected {
    pub name: &'static str,
}

/// One named point.
#[derive(Debug)]
pub struct Failpoint {
    name: &'static str,
    armed: AtomicBool,
    action: Mutex<Option<Action>>,
}

impl Failpoint {
    pub const fn new(name: &'static str) -> Self {
        Self { name, armed: AtomicBool::new(false), action: Mutex::new(None) }
    }

    /// `<crate>.<operation>.<the step that has just ended>`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// After a step that may fail.
    #[inline]
    pub async fn pass(&self) -> Result<(), Injected> {
        if !self.armed.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.go_off() {
            Some(Action::Hang) => std::future::pending().await,
            Some(Action::Delay(time)) => tokio::time::sleep(time).await,
            Some(Action::Error) => return Err(Injected { name: self.name }),
            Some(Action::Panic | Action::Kill) | None => {}
        }
        Ok(())
    }

    /// After a step whose effect stands whatever happens: errors are not for here.
    #[inline]
    pub async fn reach(&self) {
        let _ = self.pass().await;
    }

    /// As [`Failpoint::pass`], on a thread that may block.
    #[inline]
    pub fn pass_blocking(&self) -> Result<(), Injected> {
        if !self.armed.load(Ordering::Relaxed) {
            return Ok(());
        }
        match self.go_off() {
            Some(Action::Hang) => loop {
                std::thread::park();
            },
            Some(Action::Delay(time)) => std::thread::sleep(time),
            Some(Action::Error) => return Err(Injected { name: self.name }),
            Some(Action::Panic | Action::Kill) | None => {}
        }
        Ok(())
    }

    pub fn is_armed(&self) -> bool {
        self.armed.load(Ordering::Relaxed)
    }

    /// Takes the action, so that it happens once; panics and kills here.
    #[cold]
    fn go_off(&self) -> Option<Action> {
        let action = self.set(None);
        if let Some(action) = action {
            tracing::warn!(failpoint = self.name, ?action, "failpoint");
        }
        match action {
            Some(Action::Panic) => panic!("failpoint {}", self.name),
            Some(Action::Kill) => kill_this_process(),
            other => other,
        }
    }

    fn set(&self, action: Option<Action>) -> Option<Action> {
        let mut held = self.action.lock().unwrap_or_else(PoisonError::into_inner);
        self.armed.store(action.is_some(), Ordering::Relaxed);
        std::mem::replace(&mut *held, action)
    }
}

fn kill_this_process() -> ! {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
    // The signal is on its way; nothing more is done.
    loop {
        std::thread::park();
    }
}

impl From<Injected> for std::io::Error {
    fn from(injected: Injected) -> Self {
        Self::other(injected)
    }
}

/// A crate's failpoints, as statics and as a list that holds them all:
///
/// ```
/// mod points {
///     emberbox_failpoints::declare! {
///         /// The disk is there.
///         LAUNCH_DISK = "host.launch.disk";
///     }
/// }
/// assert_eq!(points::ALL[0].name(), "host.launch.disk");
/// ```
#[macro_export]
macro_rules! declare {
    ($($(#[$about:meta])* $point:ident = $name:literal;)*) => {
        $($(#[$about])* pub(crate) static $point: $crate::Failpoint = $crate::Failpoint::new($name);)*
        /// Every failpoint of this crate.
        #[allow(unreachable_pub, reason = "a crate shows its list; a test's module does not")]
        pub static ALL: &[&$crate::Failpoint] = &[$(&$point),*];
    };
}
