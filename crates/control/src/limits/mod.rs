//! How much an account may have, how much the host may hold, and how fast an account may ask.
//!
//! Owns the numbers and the buckets of requests. What there is already is counted by the store, in the transaction that adds to it.

mod rates;

use emberbox_store::Room;

pub(crate) use rates::Buckets;
pub use rates::{OperationGroup, Rate, Rates};

/// AWS's limit for every service (documented).
pub(crate) const MAXIMUM_TAGS: usize = 50;
/// The service that quotas belong to, as Service Quotas names it (documented).
pub(crate) const SERVICE_CODE: &str = "lambda";

/// Everything an operator may bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub quotas: Quotas,
    /// Baseline memory, in MiB, of everything that runs on the host at once: MicroVMs that are not suspended, and builds.
    pub host_memory_mib: u64,
    pub rates: Rates,
}

/// What one account may have; `None` is what the host holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quotas {
    /// Baseline memory of MicroVMs that are not suspended.
    pub memory_mib: Option<u64>,
    /// MicroVMs that are not terminated.
    pub microvms: Option<u64>,
    pub images: u64,
    pub versions_per_image: u64,
    pub network_connectors: u64,
    pub versions_per_network_connector: u64,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            memory_mib: None,
            microvms: None,
            images: 10_000,
            versions_per_image: 1000,
            network_connectors: 500,
            versions_per_network_connector: 100,
        }
    }
}

impl Limits {
    /// Quotas and rates by default, on a host of this size.
    pub fn for_host(memory_mib: u64) -> Self {
        Self { quotas: Quotas::default(), host_memory_mib: memory_mib, rates: Rates::default() }
    }

    pub(crate) fn room(&self) -> Room {
        Room { host_mib: self.host_memory_mib, account_mib: self.quotas.memory_mib, account_microvms: self.quotas.microvms }
    }
}
