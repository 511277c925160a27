//! Calls of the host on a MicroVM's behalf: which there are, how each is asked for and bounded, and what its end means.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use emberbox_failpoints::Failpoint;
use emberbox_host::{HostError, ImageKey, LaunchMachine, MachineId, ResumeMachine, StepTimings, StopMachine, SuspendMachine};
use emberbox_store::MicrovmRecord;
use futures::FutureExt;

use super::hooks::{self, Hook};
use super::state::Event;
use crate::control::Core;
use crate::failpoints;
use crate::timings::Stopwatch;

/// No call to the host takes longer: the longest hook is 60 s and the slowest disk writes a guest's memory in a few minutes. Beyond it the host is
/// taken to have forgotten the call, and the MicroVM is stopped.
const HOST_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Pauses before a failed stop is tried again; then it is TERMINATED and what is left the orphans' reconciler's.
const STOP_RETRIES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10)];

type Outcome = Result<StepTimings, HostError>;
type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Which host call is under way. Kept beside the phase: a termination changes the phase while the call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Launch,
    Suspend,
    Resume,
    Stop,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Stop => "terminate",
        }
    }

    /// The points around this call: when its intent is on record, when it has ended, when that is on record.
    pub(super) fn failpoints(self) -> [&'static Failpoint; 3] {
        match self {
            Self::Launch => [&failpoints::LAUNCH_RECORDED, &failpoints::LAUNCH_OUTCOME, &failpoints::LAUNCH_WRITTEN],
            Self::Suspend => [&failpoints::SUSPEND_RECORDED, &failpoints::SUSPEND_OUTCOME, &failpoints::SUSPEND_WRITTEN],
            Self::Resume => [&failpoints::RESUME_RECORDED, &failpoints::RESUME_OUTCOME, &failpoints::RESUME_WRITTEN],
            Self::Stop => [&failpoints::TERMINATE_RECORDED, &failpoints::TERMINATE_OUTCOME, &failpoints::TERMINATE_WRITTEN],
        }
    }

    pub(super) fn event(self, result: &Outcome) -> Event {
        match (self, result) {
            (Self::Launch, Ok(_)) => Event::Launched,
            (Self::Launch, Err(_)) => Event::LaunchFailed,
            (Self::Suspend | Self::Resume, Err(HostError::NoSuchMachine(_) | HostError::MachineLost { .. })) => Event::Lost,
            // The machine runs and its application has refused to: it is ended, as after a failed `/run` (ours; AWS documents no other way).
            (Self::Resume, Err(HostError::Hook { .. })) => Event::Lost,
            (Self::Suspend, Ok(_)) => Event::SuspendDone,
            (Self::Suspend, Err(_)) => Event::SuspendFailed,
            (Self::Resume, Ok(_)) => Event::ResumeDone,
            (Self::Resume, Err(_)) => Event::ResumeFailed,
            (Self::Stop, Ok(_) | Err(_)) => Event::Stopped,
        }
    }
}

/// A call that has begun.
pub(super) struct UnderWay {
    pub(super) kind: Kind,
    work: Work,
    clock: Stopwatch,
}

pub(super) type Ended = (Kind, Stopwatch, Outcome);

/// The end of the call under way; never, when there is none.
pub(super) async fn ended(under_way: &mut Option<UnderWay>) -> Ended {
    let Some(call) = under_way else { return std::future::pending().await };
    let result = call.work.as_mut().await;
    let (kind, clock) = (call.kind, call.clock.clone());
    *under_way = None;
    (kind, clock, result)
}

pub(super) fn launch(core: &Core, record: &MicrovmRecord, payload: Option<String>, clock: Stopwatch) -> UnderWay {
    let host = core.host.clone();
    let Some(image) = ImageKey::new(record.image_key.clone()) else {
        unreachable!("image keys are a uuid and a number, which fit a directory name");
    };
    let run = hooks::call(&record.settings.hooks, Hook::Run).map(|call| (call, payload));
    let request = LaunchMachine { machine: machine(record), image, name: record.id.to_string(), run };
    begin(Kind::Launch, clock, async move { host.launch(request).await })
}

pub(super) fn suspend(core: &Core, record: &MicrovmRecord, clock: Stopwatch) -> UnderWay {
    let host = core.host.clone();
    let request = SuspendMachine { machine: machine(record), suspend: hooks::call(&record.settings.hooks, Hook::Suspend) };
    begin(Kind::Suspend, clock, async move { host.suspend(request).await.map(|suspended| suspended.steps) })
}

pub(super) fn resume(core: &Core, record: &MicrovmRecord, clock: Stopwatch) -> UnderWay {
    let host = core.host.clone();
    let request = ResumeMachine { machine: machine(record), resume: hooks::call(&record.settings.hooks, Hook::Resume) };
    begin(Kind::Resume, clock, async move { host.resume(request).await })
}

/// `application_runs`: whether there is somebody to hear `/terminate`. `died`: its disk is kept for who wants to know why.
pub(super) fn stop(core: &Core, record: &MicrovmRecord, application_runs: bool, died: bool, clock: Stopwatch) -> UnderWay {
    let host = core.host.clone();
    let terminate = hooks::call(&record.settings.hooks, Hook::Terminate).filter(|_| application_runs);
    let keep_disk = died && !core.config.lives.keep_lost_disks.is_zero();
    let mut request = StopMachine { machine: machine(record), terminate, keep_disk };
    let work = async move {
        for pause in STOP_RETRIES {
            let attempt = async {
                failpoints::TERMINATE_RECORDED.pass().await.map_err(HostError::from)?;
                host.stop(request.clone()).await
            };
            match AssertUnwindSafe(attempt).catch_unwind().await {
                Ok(Ok(steps)) => return Ok(steps),
                Ok(Err(error)) => tracing::warn!(error = &error as &dyn std::error::Error, "a stop failed"),
                Err(_) => tracing::error!("a stop panicked"),
            }
            // `/terminate` is called once.
            request.terminate = None;
            tokio::time::sleep(pause).await;
        }
        host.stop(request).await
    };
    begin(Kind::Stop, clock, work)
}

fn machine(record: &MicrovmRecord) -> MachineId {
    MachineId(record.id.0)
}

fn begin(kind: Kind, mut clock: Stopwatch, work: impl Future<Output = Outcome> + Send + 'static) -> UnderWay {
    clock.skip();
    let [recorded, ..] = kind.failpoints();
    let work = async move {
        // A stop passes it with each attempt.
        if kind != Kind::Stop {
            recorded.pass().await?;
        }
        work.await
    };
    let bounded = async move {
        match tokio::time::timeout(HOST_DEADLINE, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(fault("the host panicked", "see the daemon's log")),
            Err(elapsed) => Err(fault("the host did not finish in time", elapsed)),
        }
    };
    UnderWay { kind, work: Box::pin(bounded), clock }
}

fn fault(attempted: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HostError {
    HostError::internal(attempted)(source)
}
