//! What an operator may set about control.

use std::time::Duration;

use emberbox_store::IdleSignal;
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
    pub lives: LifeSettings,
}

/// How long MicroVMs live by themselves, and what is kept of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LifeSettings {
    /// What counts as activity for images that do not say.
    pub idle_signal: IdleSignal,
    /// Percent of one CPU from which on a MicroVM is computing.
    pub busy_percent: u32,
    /// Percent of the host's memory below which idle MicroVMs are suspended early; 0 for never.
    pub low_memory_percent: u32,
    /// How long TERMINATED MicroVMs stay listed.
    pub keep_terminated: Duration,
    /// How long the disk of a MicroVM that died is kept; zero for not at all.
    pub keep_lost_disks: Duration,
    /// Suspend what runs when the daemon stops, within this time.
    pub suspend_at_shutdown: Option<Duration>,
}

impl Default for LifeSettings {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            idle_signal: IdleSignal::Traffic,
            busy_percent: 10,
            low_memory_percent: 5,
            keep_terminated: DAY,
            keep_lost_disks: DAY,
            suspend_at_shutdown: None,
        }
    }
}

/// How a MicroVM's endpoint is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointSettings {
    /// An address of its own in 127.64.0.0/10: works without DNS, on this machine alone.
    Loopback { port: u16 },
    /// `<uuid>.<domain>`.
    Domain { domain: String, port: u16 },
}
