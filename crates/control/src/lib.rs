//! Decides: records, state machines, admission, timers and reconciliation. Never touches the machine; `emberbox-host` does that.
//!
//! ```text
//!  api ──authorize──▶ access/operations ─▶ access/policy
//!  api ──call──▶ router ─▶ operations/* ─▶ store          (answers at once)
//!                              │
//!                              ├─▶ microvm/driver  one task per MicroVM  ──▶ Host
//!                              └─▶ image/driver    one task per build    ──▶ ImageBuilder
//!  ingress ─Traffic─▶ microvm/traffic ─▶ driver (wake), Host::connect
//!  reconcile: idle, expiry (timer and poke), orphans (at start), exits
//! ```
//!
//! The way of every change: admission (pure), intent in the store, side effect on the host, outcome in the store. A crash between any two of them
//! is finished or undone by `reconcile/orphans.rs` at the next start.
#![forbid(unsafe_code)]

pub mod access;
pub mod accounts;
mod clock;
mod config;
mod connector;
mod connectors;
mod control;
pub mod doctor;
mod endpoint;
pub mod events;
pub mod failpoints;
mod idempotency;
mod idle;
mod image;
pub mod image_builder;
mod limits;
mod logs;
mod microvm;
mod operations;
mod pagination;
pub mod reason;
mod reconcile;
mod refusal;
mod router;
mod shutdown;
mod steady;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod timings;
pub mod token;
pub mod traffic;
mod views;

pub use clock::{Clock, SinceBoot, SystemClock};
pub use config::{ControlConfig, EndpointSettings, LifeSettings};
pub use control::{Collaborators, Control, StartError};
pub use limits::{Limits, OperationGroup, Quotas, Rate, Rates};
pub use logs::{LogEntry, LogSink};
