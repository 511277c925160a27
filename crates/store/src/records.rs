//! What is kept. Every type here round-trips through its table (see the tests of the table's module).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use emberbox_wire::arn::ImageArn;
use emberbox_wire::ids::{AccountId, BuildId, EndpointId, ImageVersion, MicrovmId};
use emberbox_wire::microvms::{
    BuildState, Hooks, IdlePolicy, ImageDefinition, ImageState, Logging, MicrovmState, VersionState, VersionStatus,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

/// A moment of wall time, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UnixMillis(pub i64);

impl UnixMillis {
    /// As the API writes it.
    pub fn epoch_seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }
}

/// A moment on the daemon's steady clock, in milliseconds: it never goes back, and no change of wall time moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SteadyMillis(pub i64);

/// A MicroVM's life on the steady clock: what policies and its maximum duration are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SteadyLife {
    pub started: SteadyMillis,
    /// When it entered its phase.
    pub since: SteadyMillis,
    /// Its last traffic, as last stored.
    pub touched: SteadyMillis,
}

impl SteadyLife {
    pub fn beginning(now: SteadyMillis) -> Self {
        Self { started: now, since: now, touched: now }
    }
}

/// One image through all its versions; another one after it was deleted and made anew under the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ImageId(pub Uuid);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ImageId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct ImageRecord {
    pub id: ImageId,
    pub arn: ImageArn,
    pub state: ImageState,
    pub created_at: UnixMillis,
    pub updated_at: UnixMillis,
}

/// An image as a listing shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedImage {
    pub image: ImageRecord,
    pub latest_active: Option<ImageVersion>,
    pub latest_failed: Option<ImageVersion>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct VersionRecord {
    pub image: ImageId,
    pub version: ImageVersion,
    pub state: VersionState,
    pub status: VersionStatus,
    pub state_reason: Option<String>,
    /// As the caller gave it.
    pub definition: ImageDefinition,
    /// Directory of its files on the host.
    pub image_key: String,
    /// What the builder made, once it has.
    pub built: Option<Value>,
    pub created_at: UnixMillis,
    pub updated_at: UnixMillis,
}

/// `snapshotBuild`; absent members are absent there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBytes {
    pub code_install: Option<u64>,
    pub memory: Option<u64>,
    pub disk: Option<u64>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct BuildRecord {
    pub id: BuildId,
    pub image: ImageId,
    pub version: ImageVersion,
    pub state: BuildState,
    pub state_reason: Option<String>,
    pub sizes: SnapshotBytes,
    /// Time per step, for the operator.
    pub timings: Value,
    pub created_at: UnixMillis,
    pub updated_at: UnixMillis,
}

/// Where a MicroVM is in its life. One step finer than the API's state: a wake that has begun is known after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Phase {
    Launching,
    Running,
    Suspending,
    Suspended,
    Resuming,
    Terminating,
    Terminated,
}

impl Phase {
    pub const ALL: [Self; 7] =
        [Self::Launching, Self::Running, Self::Suspending, Self::Suspended, Self::Resuming, Self::Terminating, Self::Terminated];

    /// What the API calls it. The service has no word for a wake under way: it is SUSPENDED until it is RUNNING (documented).
    pub fn state(self) -> MicrovmState {
        match self {
            Self::Launching => MicrovmState::Pending,
            Self::Running => MicrovmState::Running,
            Self::Suspending => MicrovmState::Suspending,
            Self::Suspended | Self::Resuming => MicrovmState::Suspended,
            Self::Terminating => MicrovmState::Terminating,
            Self::Terminated => MicrovmState::Terminated,
        }
    }
}

/// What counts as activity for an idle policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IdleSignal {
    /// Traffic through the endpoint (documented).
    #[default]
    #[serde(rename = "traffic")]
    Traffic,
    /// Computing counts too (ours).
    #[serde(rename = "traffic+cpu")]
    TrafficAndCpu,
}

/// What RunMicrovm fixed for the MicroVM's whole life. The payload of `/run` is not among it: it is never written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSettings {
    pub ingress_network_connectors: Vec<String>,
    pub egress_network_connectors: Vec<String>,
    pub execution_role_arn: Option<String>,
    pub idle_policy: Option<IdlePolicy>,
    pub logging: Option<Logging>,
    pub maximum_duration_in_seconds: u32,
    /// Of the image version.
    pub hooks: Hooks,
    /// Of the image's tag, or the operator's choice.
    #[serde(default)]
    pub idle_signal: IdleSignal,
}

#[derive(Debug, Clone, PartialEq)]
pub struct MicrovmRecord {
    pub id: MicrovmId,
    pub account: AccountId,
    pub endpoint: EndpointId,
    /// Its own loopback address, where endpoints are addresses.
    pub address: Option<Ipv4Addr>,
    pub image: ImageId,
    pub image_arn: ImageArn,
    pub version: ImageVersion,
    pub image_key: String,
    /// `minimumMemoryInMiB` of its image: what it counts for while it is not suspended.
    pub memory_mib: u32,
    pub phase: Phase,
    pub state_reason: Option<String>,
    pub settings: RunSettings,
    /// Time per step of the last launch, suspend, resume and terminate, for the operator.
    pub timings: Value,
    pub started_at: UnixMillis,
    pub phase_since: UnixMillis,
    pub steady: SteadyLife,
    pub terminated_at: Option<UnixMillis>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Where the next page goes on; `None` at the end.
    pub next: Option<i64>,
}

impl<T> Page<T> {
    /// `rows` holds one more than `limit` when there is more.
    pub(crate) fn of(mut rows: Vec<(i64, T)>, limit: u32) -> Self {
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next = more.then(|| rows.last().map(|(seq, _)| *seq)).flatten();
        Self { items: rows.into_iter().map(|(_, item)| item).collect(), next }
    }
}
