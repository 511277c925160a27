//! What an operator may set about control.

use emberbox_wire::ids::AccountId;

use crate::limits::Limits;

#[derive(Debug, Clone, PartialEq)]
pub struct ControlConfig {
    /// The region ARNs name.
    pub region: String,
    /// The account of the key made at first start.
    pub default_account: AccountId,
    pub endpoint: EndpointSettings,
    /// Image builds at a time; the others wait as PENDING.
    pub parallel_builds: usize,
    pub limits: Limits,
}

/// How a MicroVM's endpoint is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointSettings {
    /// An address of its own in 127.64.0.0/10: works without DNS, on this machine alone.
    Loopback { port: u16 },
    /// `<uuid>.<domain>`.
    Domain { domain: String, port: u16 },
}
