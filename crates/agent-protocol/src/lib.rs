//! What the host and the agent in the guest say to each other.
//!
//! The agent listens on TCP at [`GUEST_ADDRESS`]:[`AGENT_PORT`] and serves connections from [`HOST_ADDRESS`] alone. A
//! connection carries one exchange: the host sends one [`Call`] as a line of JSON, the agent answers with one or more
//! [`Reply`] lines. After [`Reply::Connected`] the connection is a plain byte stream to the application.
//!
//! The guest is hostile to the host: the host bounds every line by [`MAX_LINE_BYTES`] and every wait by a deadline, and
//! believes nothing a reply says beyond what it asked for.
//!
//! [`GENERATION`] is the one number of this protocol. A snapshot keeps the agent it was taken with, so the host refuses a
//! snapshot of another generation instead of guessing.
#![forbid(unsafe_code)]

mod link;
mod message;

pub use link::{AGENT_PORT, DNS_ADDRESS, GUEST_ADDRESS, GUEST_MAC, HOST_ADDRESS, HOST_MAC, METADATA_ADDRESS, PREFIX_LENGTH};
pub use message::{
    Application, Call, Capabilities, Command, Disk, Hook, HookOutcome, HookRetry, Identity, LogLine, LogStream, Reply, Request, Restored,
};

/// Raised whenever a message changes its meaning or its shape.
pub const GENERATION: u32 = 2;

/// No line of the protocol is longer; a longer one is a fault of its sender and ends the connection.
pub const MAX_LINE_BYTES: usize = 4 * 1024 * 1024;
