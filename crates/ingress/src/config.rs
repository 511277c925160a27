//! What the operator may choose, and the limits that keep one client or guest from starving the others.

use std::net::IpAddr;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressConfig {
    /// 0 lets the kernel choose, for tests.
    pub port: u16,
    pub mode: IngressMode,
    pub limits: Limits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IngressMode {
    /// Each MicroVM has a loopback address of its own; no DNS, reachable from this machine alone.
    Loopback,
    /// Each MicroVM is `<label>.<domain>`; the operator owns the DNS wildcard.
    Domain { domain: String, listen: IpAddr },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections at once; more wait in the kernel's backlog. Each takes two descriptors.
    pub connections: usize,
    pub tls_handshake: Duration,
    /// For a request's head to arrive, and for an idle connection to send its next one.
    pub request_head: Duration,
    /// For a stream to the guest, the wake included.
    pub connect: Duration,
    /// For the application to begin its answer. Long, because long polls are legitimate; finite, because a connection is not free.
    pub response_head: Duration,
    /// How often a request in progress says so to control.
    pub touch_every: Duration,
    /// For requests in progress to end once shutdown began.
    pub drain: Duration,
}

impl IngressConfig {
    pub fn new(port: u16, mode: IngressMode) -> Self {
        Self { port, mode, limits: Limits::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            tls_handshake: Duration::from_secs(10),
            request_head: Duration::from_secs(60),
            connect: Duration::from_secs(120),
            response_head: Duration::from_secs(900),
            touch_every: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}
