//! Requests on their way to a MicroVM: found by endpoint, woken if need be, connected.
//!
//! A request that comes while the MicroVM is PENDING waits (ours; AWS answers 502). Requests that come while it is SUSPENDED share one wake: the
//! first one's RESUMING is on record before the second one looks.

use std::time::Duration;

use async_trait::async_trait;
use emberbox_host::{ConnectError, GuestStream};
use emberbox_store::Phase;
use emberbox_wire::ids::{EndpointId, MicrovmId};
use tokio::sync::watch;
use uuid::Uuid;

use super::registry::{Handle, Request, RequestError, View};
use crate::connectors;
use crate::control::Control;
use crate::traffic::{EndpointName, Traffic, TrafficError};

/// How long a request waits for a MicroVM that launches or wakes: as long as the longest `/run` or `/resume` hook (60 s), and the launch around it.
const READY_DEADLINE: Duration = Duration::from_secs(90);
/// How long a MicroVM that control believes RUNNING and the host says is not may take to be found out: the exit is on its way.
const SETTLE_DEADLINE: Duration = Duration::from_secs(2);

#[async_trait]
impl Traffic for Control {
    async fn locate(&self, endpoint: &EndpointName) -> Option<MicrovmId> {
        let core = self.core();
        // One that is not alive is looked up all the same: its answer is another than that of an endpoint nobody ever had (observed).
        let record = match endpoint {
            EndpointName::Address(address) => match core.microvms.by_address(*address) {
                Some(id) => return Some(id),
                None => core.store.microvm_by_address(*address).await,
            },
            EndpointName::Label(label) => match core.microvms.by_label(label) {
                Some(id) => return Some(id),
                None => core.store.microvm_by_endpoint(EndpointId(Uuid::try_parse(label).ok()?)).await,
            },
        };
        match record {
            Ok(record) => record.map(|record| record.id),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an endpoint could not be looked up");
                None
            }
        }
    }

    async fn connect(&self, microvm: MicrovmId, port: u16) -> Result<Box<dyn GuestStream>, TrafficError> {
        let Some(handle) = self.core().microvms.get(microvm) else {
            return Err(match self.core().stop.is_cancelled() {
                true => TrafficError::Unreachable("Emberbox is stopping".into()),
                false => TrafficError::NotRunning("it has been terminated".into()),
            });
        };
        if !connectors::serve_http(&self.core().config.region, &handle.settings.ingress_network_connectors) {
            return Err(TrafficError::NotRunning("it has no HTTP_INGRESS network connector".into()));
        }
        self.touch(microvm);
        let attempt = async {
            loop {
                wait_until_running(&handle).await?;
                match self.core().host.connect(handle.machine(), port).await {
                    Ok(stream) => return Ok(stream),
                    Err(ConnectError::Refused) => return Err(TrafficError::Refused),
                    Err(ConnectError::Unreachable(reason)) => return Err(TrafficError::Unreachable(reason)),
                    // Suspended or ended between the look and the call; if neither shows soon, it is stuck.
                    Err(ConnectError::NotRunning) => leave_running(&handle).await?,
                }
            }
        };
        let late = || TrafficError::Unreachable(format!("it was not ready within {} s", READY_DEADLINE.as_secs()));
        tokio::time::timeout(READY_DEADLINE, attempt).await.map_err(|_| late())?
    }

    fn touch(&self, microvm: MicrovmId) {
        if let Some(handle) = self.core().microvms.get(microvm) {
            handle.touch(self.core().steady.now().steady);
        }
    }
}

/// Returns when the MicroVM is RUNNING, having woken it if its policy says so.
async fn wait_until_running(handle: &Handle) -> Result<(), TrafficError> {
    let mut watch = handle.watch();
    let wakes_before = handle.view().failed_wakes;
    let wakes_itself = handle.settings.idle_policy.is_some_and(|policy| policy.auto_resume_enabled);
    loop {
        let view = watch.borrow_and_update().clone();
        match view.phase {
            Phase::Running => return Ok(()),
            Phase::Launching | Phase::Resuming => {}
            Phase::Suspending | Phase::Suspended if !wakes_itself => {
                return Err(TrafficError::NotRunning("it is suspended and its idle policy does not resume it".into()));
            }
            Phase::Suspending => {}
            Phase::Suspended if view.failed_wakes != wakes_before => {
                return Err(TrafficError::Unreachable(view.reason.unwrap_or_else(|| "it could not be resumed".into())));
            }
            Phase::Suspended => wake(handle).await?,
            Phase::Terminating | Phase::Terminated => return Err(terminated(&view)),
        }
        changed(&mut watch).await?;
    }
}

async fn wake(handle: &Handle) -> Result<(), TrafficError> {
    match handle.ask(Request::Wake).await {
        // Refused: it has moved on since it was looked at, and the watch tells where.
        Ok(()) | Err(RequestError::Refused(_)) => Ok(()),
        Err(error @ (RequestError::NotRecorded | RequestError::DiskFull | RequestError::NoRoom | RequestError::Gone)) => {
            Err(TrafficError::Unreachable(error.to_string()))
        }
    }
}

async fn leave_running(handle: &Handle) -> Result<(), TrafficError> {
    let mut watch = handle.watch();
    let left = tokio::time::timeout(SETTLE_DEADLINE, watch.wait_for(|view| view.phase != Phase::Running)).await;
    match left {
        Ok(_) => Ok(()),
        Err(_) => Err(TrafficError::Unreachable("its machine does not run".into())),
    }
}

async fn changed(watch: &mut watch::Receiver<View>) -> Result<(), TrafficError> {
    if watch.changed().await.is_err() {
        return Err(terminated(&watch.borrow()));
    }
    Ok(())
}

fn terminated(view: &View) -> TrafficError {
    TrafficError::NotRunning(view.reason.clone().unwrap_or_else(|| "it has been terminated".into()))
}
