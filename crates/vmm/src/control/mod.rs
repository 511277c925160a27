//! How the daemon drives the monitor: requests and answers, one JSON line each, over sockets that it made.
//!
//! A monitor starts with one end of a socket pair and no machine. `Boot` or `Restore` gives it one, with every descriptor that it will ever have, among
//! them a listening socket by which a restarted daemon finds it again. Lines are bounded; a peer that breaks the rules is disconnected.

mod channel;
mod message;
mod request;
mod server;

pub use message::{Answer, Call, DiskSpec, GENERATION, MAX_LINE_BYTES, MachineSpec, Request, Stats, WorkingSet};
#[cfg(test)]
pub(crate) use request::Descriptors;
pub(crate) use request::{BootFiles, Common, RestoreFiles, WorkingSetFile};
pub(crate) use server::serve;

/// For fuzzing: takes `bytes` as what a peer sends.
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = channel::parse(bytes);
}
