//! What can be done with machines: one file an operation, each an ordered list of named steps.

pub(crate) mod adopt;
mod boot;
pub(crate) mod build;
pub(crate) mod capture;
pub(crate) mod connect;
pub(crate) mod hooks;
pub(crate) mod launch;
mod record;
mod restore;
pub(crate) mod resume;
pub(crate) mod stop;
pub(crate) mod suspend;
