//! Decides: records, state machines, admission, timers and reconciliation. Never touches the machine; `emberbox-host` does that.
#![forbid(unsafe_code)]

pub mod image_builder;
pub mod token;
pub mod traffic;
