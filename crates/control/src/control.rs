//! The whole of control: what it is made of, how it starts and ends, and what others call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use emberbox_host::{Host, HostError};
use emberbox_store::{Store, StoreError};
use emberbox_wire::arn::ImageArn;
use emberbox_wire::audit::AuditLog;
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::error::ApiError;
use emberbox_wire::ids::{ImageVersion, MicrovmId};
use rand::RngCore;
use serde_json::Value;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::access::{self, Access};
use crate::clock::Clock;
use crate::config::ControlConfig;
use crate::events::{EventSink, Teller};
use crate::image_builder::ImageBuilder;
use crate::limits::{Buckets, OperationGroup};
use crate::logs::LogSink;
use crate::microvm::registry::Registry;
use crate::refusal::Refusal;
use crate::steady::SteadyClock;
use crate::token::TokenKeys;
use crate::{accounts, reconcile, router, shutdown};

/// The stored secret that seals page tokens and keys digests of requests.
const SECRET: &str = "control-secret";
const SECRET_BYTES: usize = 32;

/// Why control does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the records could not be read or written")]
    Store(#[from] StoreError),
    #[error("the host could not say what it runs")]
    Inventory(#[from] HostError),
    #[error("the default account's access key could not be made")]
    AccessKey(#[source] StoreError),
}

/// What every part of control works with.
pub(crate) struct Core {
    pub(crate) config: ControlConfig,
    pub(crate) store: Store,
    pub(crate) access: Arc<Access>,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) builder: Arc<dyn ImageBuilder>,
    pub(crate) tokens: Arc<TokenKeys>,
    pub(crate) logs: Arc<dyn LogSink>,
    pub(crate) teller: Teller,
    pub(crate) clock: Arc<dyn Clock>,
    /// What lifetimes and policies are counted on.
    pub(crate) steady: SteadyClock,
    pub(crate) secret: Vec<u8>,
    pub(crate) microvms: Registry,
    pub(crate) rates: Buckets,
    /// Room for builds.
    pub(crate) builds: Semaphore,
    /// Wakes the reconcilers before their timer does.
    pub(crate) poke: Notify,
    /// Something panicked: there may be a record without a task.
    suspicion: AtomicBool,
    /// Owns every task; [`Control::shutdown`] joins them.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// What control is given to work with.
pub struct Collaborators {
    /// With the records and the clock that all work by.
    pub access: Arc<Access>,
    pub host: Arc<dyn Host>,
    pub builder: Arc<dyn ImageBuilder>,
    pub tokens: Arc<TokenKeys>,
    pub logs: Arc<dyn LogSink>,
    /// For what the daemon does by itself; calls are noted by the API's front.
    pub audit: Arc<dyn AuditLog>,
    pub events: Arc<dyn EventSink>,
}

impl Core {
    pub(crate) fn suspect(&self) {
        self.suspicion.store(true, Ordering::Relaxed);
    }

    pub(crate) fn take_suspicion(&self) -> bool {
        self.suspicion.swap(false, Ordering::Relaxed)
    }
}

/// Decides about images and MicroVMs. See the crate's documentation.
pub struct Control {
    core: Arc<Core>,
}

impl Control {
    /// Puts records and machines in agreement, then begins its tasks.
    pub async fn start(config: ControlConfig, with: Collaborators) -> Result<Arc<Self>, StartError> {
        let Collaborators { access, host, builder, tokens, logs, audit, events } = with;
        let (store, clock) = (access.store().clone(), access.clock().clone());
        let secret = store.setting_or_insert(SECRET, new_secret).await?;
        accounts::ensure_root_key(&store, &config.default_account, clock.now()).await.map_err(StartError::AccessKey)?;
        let builds = Semaphore::new(config.parallel_builds.max(1));
        let rates = Buckets::new(config.limits.rates);
        let steady = SteadyClock::start(clock.clone(), &store).await?;
        let core = Arc::new(Core {
            config,
            store,
            access,
            host,
            builder,
            tokens,
            logs,
            teller: Teller { events, audit },
            clock,
            steady,
            secret,
            microvms: Registry::default(),
            rates,
            builds,
            poke: Notify::new(),
            suspicion: AtomicBool::new(false),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        reconcile::start(&core).await?;
        Ok(Arc::new(Self { core }))
    }

    /// Carries out one operation of the service model; `input` has passed its validation. Goes on to its end when the caller stops waiting, so that
    /// no record is left without its task.
    pub async fn call(&self, caller: &Caller, operation: &str, input: Value) -> Result<Value, ApiError> {
        if self.core.stop.is_cancelled() {
            return Err(ApiError::internal());
        }
        self.admit(caller, operation)?;
        let span = tracing::info_span!("operation", name = operation, account = %caller.account);
        let (core, caller, operation) = (self.core.clone(), caller.clone(), operation.to_owned());
        let answer = async move { router::route(&core, &caller, &operation, input).await };
        match self.core.tasks.spawn(answer.instrument(span)).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an operation panicked");
                self.core.suspect();
                Err(ApiError::internal())
            }
        }
    }

    /// Whether the account has not asked too often.
    fn admit(&self, caller: &Caller, operation: &str) -> Result<(), Refusal> {
        let group = OperationGroup::of(operation);
        let taken = self.core.rates.take(&caller.account, group, self.core.clock.now());
        taken.map_err(|retry_after_seconds| Refusal::Throttled { group, retry_after_seconds })
    }

    /// Whether the caller's policies allow an operation and what it passes on. Comes before every [`Control::call`].
    pub async fn authorize(&self, caller: &Caller, operation: &str, input: &Value) -> Result<(), ApiError> {
        access::operations::authorize(&self.core, caller, operation, input).await
    }

    pub fn access(&self) -> Arc<Access> {
        self.core.access.clone()
    }

    /// The access key made for the default account's root at first start.
    pub async fn first_access_key(&self) -> Result<AccessKey, StoreError> {
        accounts::ensure_root_key(&self.core.store, &self.core.config.default_account, self.core.clock.now()).await
    }

    /// Time per step of a MicroVM's last `launch`, `suspend`, `resume` and `terminate`: for each `{"total_ms", "daemon_ms", "steps": [{"name",
    /// "ms", "of": "control" | "host"}]}`. `None` for a MicroVM that never was.
    pub async fn timings(&self, microvm: &MicrovmId) -> Result<Option<Value>, StoreError> {
        if let Some(handle) = self.core.microvms.get(*microvm) {
            return Ok(Some(handle.view().timings.as_ref().clone()));
        }
        Ok(self.core.store.microvm(*microvm).await?.map(|record| record.timings))
    }

    /// As [`Control::timings`], for the builds of an image version: `[{"buildId", "timings"}]`, newest first.
    pub async fn build_timings(&self, image: &ImageArn, version: ImageVersion) -> Result<Option<Value>, StoreError> {
        let Some(image) = self.core.store.image_by_arn(image).await? else { return Ok(None) };
        let builds = self.core.store.builds(image.id, version, None, u32::from(u8::MAX)).await?.items;
        let timings = builds.into_iter().map(|build| serde_json::json!({"buildId": build.id, "timings": build.timings}));
        Ok(Some(Value::Array(timings.collect())))
    }

    /// Runs the reconcilers now rather than at their next tick.
    pub fn poke(&self) {
        self.core.poke.notify_one();
    }

    /// Suspends what runs, if the operator wants that; takes nothing new, lets host calls that have begun end, and joins every task. Builds are dropped: the next start says that they failed.
    pub async fn shutdown(&self) {
        shutdown::shutdown(&self.core).await;
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

fn new_secret() -> Vec<u8> {
    let mut secret = vec![0; SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    secret
}
