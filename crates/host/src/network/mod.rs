//! Cells: one network namespace for each machine, with the tap of its network card, a way out through NAT and no way in.
//!
//! ```text
//! guest eth0 ── tap0 │ cell │ up0 ──veth── ebXXXX-N │ host │ ── masquerade ── the host's uplink
//! ```
//! The guest may start TCP connections to public addresses, and ask the DNS relay that the daemon runs inside the cell. Everything else is refused in
//! the cell, and once more by the host's own rules, so that a mistake in one place opens nothing.
//!
//! A cell has no name and no file: it exists while the daemon or its machine's process holds it, and takes its devices with it when it goes. Connections that a
//! killed daemon had in it can hold it for minutes more; the next start takes the links of such cells away ([`CellPool::sweep`]).

mod addresses;
mod cell;
mod dns;
mod pool;
mod rules;
mod soon;
mod tools;

pub(crate) use cell::Cell;
pub(crate) use pool::{CellPool, SurveyedNetwork};

use std::net::IpAddr;

/// How cells reach the world.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Cells made ahead of launches.
    pub pool: usize,
    /// Networks that guests may reach though they are not public, in CIDR form: a package mirror in the company's network, for instance.
    pub allow: Vec<String>,
    /// Resolvers that the DNS relay asks; the host's own when empty.
    pub resolvers: Vec<IpAddr>,
}

/// A cell could not be made or configured.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("could not run `{tool}`: is it installed? (apt-get install iproute2 nftables)")]
    Tool {
        tool: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("`{tool}` refused: {message}")]
    Refused { tool: &'static str, message: String },
    #[error("could not {attempted}")]
    Io {
        attempted: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("no free addresses for cells: 198.18.0.0/15 is in use on this host")]
    NoAddresses,
}
