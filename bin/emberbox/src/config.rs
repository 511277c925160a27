//! The configuration file. All of it is read and checked before anything starts; docs/configuration.md describes each member.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use emberbox_control::LifeSettings;
use emberbox_host::{Compression, EngineChoice, MonitorOptions, Registry};
use emberbox_store::IdleSignal;
use serde::Deserialize;

use crate::arguments::Serve;
use crate::json_lines::Rotation;
use crate::limits::{Capacity, QuotaSettings, RateSettings};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub region: String,
    pub account: String,
    /// Where `guest/build` put the managed base.
    pub base: PathBuf,
    pub api: Api,
    pub ingress: Ingress,
    pub engine: Engine,
    pub network: Network,
    pub build: Build,
    pub trust: Trust,
    pub audit: Rotation,
    pub events: Rotation,
    pub idle: Idle,
    pub memory: Memory,
    pub retention: Retention,
    pub shutdown: Shutdown,
    pub capacity: Capacity,
    pub quotas: QuotaSettings,
    pub rates: RateSettings,
    pub storage: Storage,
    pub snapshot: Snapshot,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Snapshot {
    /// How the memory of suspended MicroVMs is written.
    pub compress: Compress,
    /// A suspension that takes longer is given up.
    pub within_seconds: u64,
    /// Whether builds record what launches touch, and launches have it in place.
    pub working_set: bool,
}

/// A slow disk writes a large MicroVM in this.
const SUSPENDED_WITHIN_SECONDS: u64 = 600;
/// Control gives any call of the host a quarter of an hour, the hook and what follows included.
const SUSPENDED_WITHIN_MOST_SECONDS: u64 = 720;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Compress {
    #[default]
    None,
    Zstd,
}

impl From<Compress> for Compression {
    fn from(compress: Compress) -> Self {
        match compress {
            Compress::None => Self::None,
            Compress::Zstd => Self::Zstd,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Storage {
    /// What builds, launches and suspensions leave free on the disk of the data directory.
    pub reserve_mib: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Api {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ingress {
    pub port: u16,
    /// Endpoints are `<uuid>.<domain>`; without one, loopback addresses.
    pub domain: Option<String>,
    /// The address to listen on, with a domain.
    pub listen: IpAddr,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Engine {
    pub kind: EngineKind,
    /// The KVM engine's monitor program.
    pub monitor: Option<PathBuf>,
    /// Reads of a disk are under way together, by an io_uring that can do nothing else, where the kernel has it.
    pub io_uring: bool,
}

impl Default for Engine {
    fn default() -> Self {
        Self { kind: EngineKind::Auto, monitor: None, io_uring: true }
    }
}

impl Engine {
    pub(crate) fn monitor_options(&self) -> MonitorOptions {
        MonitorOptions { program: self.monitor.clone(), io_uring: self.io_uring }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum EngineKind {
    #[default]
    Auto,
    Kvm,
    QemuTcg,
    QemuKvm,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Network {
    pub pool: usize,
    pub allow: Vec<String>,
    pub resolvers: Vec<IpAddr>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Build {
    pub parallel: usize,
    pub timeout_seconds: u64,
    pub registries: Vec<Registry>,
    pub limits: emberbox_images::Limits,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Trust {
    pub ca_bundle: CaBundle,
}

/// What an idle MicroVM is.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Idle {
    /// For images without the tag `emberbox:idle`.
    pub signal: IdleSignal,
    pub busy_percent: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Memory {
    /// Below so many percent idle MicroVMs are suspended early; 0 for never.
    pub low_percent: u32,
}

/// How long what has ended is kept.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retention {
    pub terminated_seconds: u64,
    /// Disks of MicroVMs whose process died; 0 for not at all.
    pub lost_disk_seconds: u64,
    /// Log streams nothing is written to any more.
    pub logs_seconds: u64,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Shutdown {
    /// Suspend what runs when the daemon stops.
    pub suspend: bool,
    pub suspend_seconds: u64,
}

/// Certificates that guests trust beside their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum CaBundle {
    /// The host's own bundle: guests trust whom the host trusts.
    Host,
    None,
    File(PathBuf),
}

impl Default for Config {
    fn default() -> Self {
        Self {
            region: "us-east-1".into(),
            account: "123456789012".into(),
            base: "/usr/local/lib/emberbox/base".into(),
            api: Api::default(),
            ingress: Ingress::default(),
            engine: Engine::default(),
            network: Network::default(),
            build: Build::default(),
            trust: Trust::default(),
            audit: Rotation::default(),
            events: Rotation::default(),
            idle: Idle::default(),
            memory: Memory::default(),
            retention: Retention::default(),
            shutdown: Shutdown::default(),
            capacity: Capacity::default(),
            quotas: QuotaSettings::default(),
            rates: RateSettings::default(),
            storage: Storage::default(),
            snapshot: Snapshot::default(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { reserve_mib: 512 }
    }
}

impl Default for Api {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 4700)) }
    }
}

impl Default for Ingress {
    fn default() -> Self {
        Self { port: 443, domain: None, listen: Ipv4Addr::UNSPECIFIED.into() }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self { pool: 4, allow: Vec::new(), resolvers: Vec::new() }
    }
}

impl Default for Build {
    fn default() -> Self {
        let limits = emberbox_images::Limits::default();
        Self { parallel: 2, timeout_seconds: emberbox_images::DEFAULT_BUILD_TIMEOUT.as_secs(), registries: Vec::new(), limits }
    }
}

impl Default for Idle {
    fn default() -> Self {
        let lives = LifeSettings::default();
        Self { signal: lives.idle_signal, busy_percent: lives.busy_percent }
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self { low_percent: LifeSettings::default().low_memory_percent }
    }
}

impl Default for Retention {
    fn default() -> Self {
        let lives = LifeSettings::default();
        Self {
            terminated_seconds: lives.keep_terminated.as_secs(),
            lost_disk_seconds: lives.keep_lost_disks.as_secs(),
            logs_seconds: 30 * 24 * 60 * 60,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { suspend: false, suspend_seconds: 240 }
    }
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { compress: Compress::default(), within_seconds: SUSPENDED_WITHIN_SECONDS, working_set: true }
    }
}

impl Default for Trust {
    fn default() -> Self {
        Self { ca_bundle: CaBundle::Host }
    }
}

impl From<EngineKind> for EngineChoice {
    fn from(kind: EngineKind) -> Self {
        match kind {
            EngineKind::Auto => Self::Auto,
            EngineKind::Kvm => Self::Kvm,
            EngineKind::QemuTcg => Self::QemuTcg,
            EngineKind::QemuKvm => Self::QemuKvm,
        }
    }
}

impl Config {
    /// The file, with what the command line says over it.
    pub(crate) fn load(arguments: &Serve) -> anyhow::Result<Self> {
        let mut config = Self::read(arguments.config.as_deref())?;
        if let Some(base) = &arguments.base {
            config.base = base.clone();
        }
        config.api.listen = arguments.listen.unwrap_or(config.api.listen);
        config.ingress.port = arguments.ingress_port.unwrap_or(config.ingress.port);
        config.check()?;
        Ok(config)
    }

    /// The file alone.
    pub(crate) fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a valid configuration", path.display()))
    }

    /// What control is told of lives.
    pub(crate) fn lives(&self) -> LifeSettings {
        LifeSettings {
            idle_signal: self.idle.signal,
            busy_percent: self.idle.busy_percent,
            low_memory_percent: self.memory.low_percent,
            keep_terminated: Duration::from_secs(self.retention.terminated_seconds),
            keep_lost_disks: Duration::from_secs(self.retention.lost_disk_seconds),
            suspend_at_shutdown: self.shutdown.suspend.then(|| Duration::from_secs(self.shutdown.suspend_seconds)),
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.idle.busy_percent > 0, "`idle.busy_percent` must be 1 or more");
        ensure!(self.memory.low_percent < 100, "`memory.low_percent` must be less than 100");
        ensure!(self.account.len() == 12 && self.account.bytes().all(|byte| byte.is_ascii_digit()), "`account` must be twelve digits");
        let in_region = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(!self.region.is_empty() && self.region.bytes().all(in_region), "`region` must look like us-east-1");
        for network in &self.network.allow {
            ensure!(is_ipv4_network(network), "`network.allow`: {network:?} is not an IPv4 network such as 10.0.0.0/8");
        }
        ensure!(self.storage.reserve_mib < 1 << 40, "`storage.reserve_mib` is larger than any disk");
        let within = 1..=SUSPENDED_WITHIN_MOST_SECONDS;
        ensure!(within.contains(&self.snapshot.within_seconds), "`snapshot.within_seconds` must be 1 to {SUSPENDED_WITHIN_MOST_SECONDS}");
        self.capacity.check()?;
        self.rates.check()
    }
}

fn is_ipv4_network(text: &str) -> bool {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    address.parse::<Ipv4Addr>().is_ok() && length.parse::<u8>().is_ok_and(|length| length <= 32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_empty_file_is_the_default() {
        let config: Config = toml::from_str("").unwrap();
        config.check().unwrap();
        assert_eq!((config.api.listen.port(), config.ingress.port, config.engine.kind), (4700, 443, EngineKind::Auto));
    }

    #[test]
    fn a_misspelt_member_is_refused() {
        assert!(toml::from_str::<Config>("[ingress]\nprot = 1").is_err());
    }

    #[test]
    fn the_documented_example_is_valid() {
        let text = include_str!("../../../docs/emberbox.example.toml");
        toml::from_str::<Config>(text).unwrap().check().unwrap();
    }

    #[test]
    fn what_would_reach_the_packet_filter_unread_is_checked() {
        let config = Config { network: Network { allow: vec!["0.0.0.0/0 } accept".into()], ..Network::default() }, ..Config::default() };
        assert!(config.check().is_err());
        assert!(is_ipv4_network("10.0.0.0/8") && is_ipv4_network("192.0.2.1"));
    }
}
