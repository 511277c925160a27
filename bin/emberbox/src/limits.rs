//! `[capacity]`, `[quotas]` and `[rates]` of the configuration, and what they mean on this host.

use anyhow::{Context, ensure};
use emberbox_control::{Limits, Quotas, Rate, Rates};
use serde::Deserialize;

/// What the host keeps for itself and the daemon: the kernel, page cache, and a few hundred MiB of QEMU processes.
const RESERVED_MIB: u64 = 1024;
/// The least baseline that the API takes.
const SMALLEST_MIB: u64 = 512;

/// `[capacity]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Capacity {
    /// Memory for guests; the host's own but for a GiB when it is not set.
    pub memory_mib: Option<u64>,
    /// How much more baseline memory may be promised than there is. MicroVMs of one image share its clean pages, so that the sum of their baselines
    /// is more than they take.
    pub oversubscription: f64,
}

/// `[quotas]`, of each account.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct QuotaSettings {
    pub memory_mib: Option<u64>,
    pub microvms: Option<u64>,
    pub images: u64,
    pub versions_per_image: u64,
    pub network_connectors: u64,
    pub versions_per_network_connector: u64,
}

/// `[rates]`, of each account.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateSettings {
    pub run: RateSetting,
    pub suspend: RateSetting,
    pub resume: RateSetting,
    pub terminate: RateSetting,
    pub build: RateSetting,
    pub token: RateSetting,
    pub write: RateSetting,
    pub read: RateSetting,
}

#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateSetting {
    pub per_second: f64,
    pub burst: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { memory_mib: None, oversubscription: 2.0 }
    }
}

impl Default for QuotaSettings {
    fn default() -> Self {
        let Quotas { memory_mib, microvms, images, versions_per_image, network_connectors, versions_per_network_connector } =
            Quotas::default();
        Self { memory_mib, microvms, images, versions_per_image, network_connectors, versions_per_network_connector }
    }
}

impl Default for RateSettings {
    fn default() -> Self {
        let Rates { run, suspend, resume, terminate, build, token, write, read } = Rates::default();
        Self {
            run: run.into(),
            suspend: suspend.into(),
            resume: resume.into(),
            terminate: terminate.into(),
            build: build.into(),
            token: token.into(),
            write: write.into(),
            read: read.into(),
        }
    }
}

impl From<Rate> for RateSetting {
    fn from(rate: Rate) -> Self {
        Self { per_second: rate.per_second, burst: rate.burst }
    }
}

impl From<RateSetting> for Rate {
    fn from(setting: RateSetting) -> Self {
        Self { per_second: setting.per_second, burst: setting.burst }
    }
}

impl Capacity {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let usable = self.oversubscription.is_finite() && self.oversubscription > 0.0;
        ensure!(usable, "`capacity.oversubscription` must be a number above zero");
        Ok(())
    }

    /// How many of the smallest MicroVMs may be at a time.
    pub(crate) fn microvms(&self) -> anyhow::Result<u64> {
        Ok(self.promised_mib()? / SMALLEST_MIB)
    }

    /// Baseline memory that may be promised in all.
    fn promised_mib(&self) -> anyhow::Result<u64> {
        let memory = match self.memory_mib {
            Some(memory) => memory,
            None => {
                let total = memory_of_host_mib().context("could not read the host's memory: set capacity.memory_mib")?;
                total.saturating_sub(RESERVED_MIB).max(total / 2)
            }
        };
        Ok((memory as f64 * self.oversubscription) as u64)
    }
}

impl RateSettings {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let all = [self.run, self.suspend, self.resume, self.terminate, self.build, self.token, self.write, self.read];
        let usable = |rate: &RateSetting| rate.per_second.is_finite() && rate.per_second >= 0.0;
        ensure!(all.iter().all(usable), "`rates`: per_second must be a number, zero or above");
        Ok(())
    }
}

/// What control is told.
pub(crate) fn limits(capacity: &Capacity, quotas: &QuotaSettings, rates: &RateSettings) -> anyhow::Result<Limits> {
    Ok(Limits {
        quotas: Quotas {
            memory_mib: quotas.memory_mib,
            microvms: quotas.microvms,
            images: quotas.images,
            versions_per_image: quotas.versions_per_image,
            network_connectors: quotas.network_connectors,
            versions_per_network_connector: quotas.versions_per_network_connector,
        },
        host_memory_mib: capacity.promised_mib()?,
        rates: Rates {
            run: rates.run.into(),
            suspend: rates.suspend.into(),
            resume: rates.resume.into(),
            terminate: rates.terminate.into(),
            build: rates.build.into(),
            token: rates.token.into(),
            write: rates.write.into(),
            read: rates.read.into(),
        },
    })
}

fn memory_of_host_mib() -> anyhow::Result<u64> {
    total_mib(&std::fs::read_to_string("/proc/meminfo")?)
}

fn total_mib(meminfo: &str) -> anyhow::Result<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("/proc/meminfo has no MemTotal")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().context("MemTotal is no number")?;
    Ok(kib / 1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_hosts_memory_is_read() {
        assert_eq!(total_mib("MemTotal:       24689764 kB\nMemFree: 1 kB\n").unwrap(), 24_111);
        assert!(total_mib("MemFree: 1 kB").is_err());
        assert!(memory_of_host_mib().unwrap() > 0);
    }

    #[test]
    fn what_is_promised_is_what_is_there_times_a_factor() {
        let set = Capacity { memory_mib: Some(1000), oversubscription: 1.5 };
        assert_eq!(set.promised_mib().unwrap(), 1500);
        assert!(Capacity { oversubscription: 0.0, ..set.clone() }.check().is_err());
        assert!(Capacity { oversubscription: f64::NAN, ..set }.check().is_err());
    }
}
