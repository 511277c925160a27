//! The one task that owns a MicroVM: it alone changes the record and calls the host for it, one call at a time.
//!
//! ```text
//!  ask ──▶ commands ──▶ react ──▶ intent written ──▶ reply ──▶ host call ──▶ outcome written ──▶ watch
//! ```
//!
//! Commands are taken while a host call is under way, so a termination is on record at once; its work begins when the call has ended.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use emberbox_failpoints::{Failpoint, Injected};
use emberbox_host::{HostError, ImageKey, LaunchMachine, MachineId, ResumeMachine, StepTimings, StopMachine, SuspendMachine};
use emberbox_store::{MicrovmRecord, Phase, UnixMillis};
use futures::FutureExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use super::hooks::{self, Hook, failure_reason};
use super::journal;
use super::registry::{COMMAND_QUEUE, Command, Handle, Request, RequestError, View};
use super::state::{Event, Reaction, react};
use crate::control::Core;
use crate::failpoints;
use crate::timings::Stopwatch;

/// No call to the host takes longer: the longest hook is 60 s and the slowest disk writes a guest's memory in a few minutes. Beyond it the host is
/// taken to have forgotten the call, and the MicroVM is stopped.
const HOST_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// Pauses before a failed stop is tried again; then it is TERMINATED and what is left the orphans' reconciler's.
const STOP_RETRIES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10)];

type Work = Pin<Box<dyn Future<Output = Result<StepTimings, HostError>> + Send>>;

/// Which host call is under way. Kept beside the phase: a termination changes the phase while the call goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Launch,
    Suspend,
    Resume,
    Stop,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Stop => "terminate",
        }
    }

    /// The points around this call: when its intent is on record, when it has ended, when that is on record.
    fn failpoints(self) -> [&'static Failpoint; 3] {
        match self {
            Self::Launch => [&failpoints::LAUNCH_RECORDED, &failpoints::LAUNCH_OUTCOME, &failpoints::LAUNCH_WRITTEN],
            Self::Suspend => [&failpoints::SUSPEND_RECORDED, &failpoints::SUSPEND_OUTCOME, &failpoints::SUSPEND_WRITTEN],
            Self::Resume => [&failpoints::RESUME_RECORDED, &failpoints::RESUME_OUTCOME, &failpoints::RESUME_WRITTEN],
            Self::Stop => [&failpoints::TERMINATE_RECORDED, &failpoints::TERMINATE_OUTCOME, &failpoints::TERMINATE_WRITTEN],
        }
    }

    fn event(self, result: &Result<StepTimings, HostError>) -> Event {
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

struct UnderWay {
    kind: Kind,
    work: Work,
    clock: Stopwatch,
}

/// How a MicroVM's task begins.
pub(crate) enum Start {
    /// RunMicrovm has just written it: launch.
    Launch { payload: Option<String>, clock: Stopwatch },
    /// The host has it in this phase, or the phase's work is to be done (again).
    Adopt,
}

struct Driver {
    core: Arc<Core>,
    record: MicrovmRecord,
    commands: mpsc::Receiver<Command>,
    view: watch::Sender<View>,
    touched: Arc<AtomicI64>,
    under_way: Option<UnderWay>,
    /// An unasked exit heard of while work was under way.
    deferred_exit: Option<String>,
    /// Whether there is an application to hear `/terminate`.
    application_runs: bool,
    failed_wakes: u32,
}

/// Begins the task of a MicroVM whose record has been written, and makes it known.
pub(crate) fn start(core: &Arc<Core>, record: MicrovmRecord, how: Start) {
    let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
    let (view, watched) = watch::channel(view_of(&record, 0));
    let touched = Arc::new(AtomicI64::new(core.clock.now().0));
    core.microvms.insert(Handle::new(&record, commands, watched, touched.clone()));
    let span = tracing::info_span!("microvm", id = %record.id);
    let application_runs = matches!(record.phase, Phase::Running | Phase::Suspending);
    let mut driver = Driver {
        core: core.clone(),
        record,
        commands: queue,
        view,
        touched,
        under_way: None,
        deferred_exit: None,
        application_runs,
        failed_wakes: 0,
    };
    let work = async move {
        match how {
            Start::Launch { payload, mut clock } => {
                clock.step("queue_wait");
                driver.begin_launch(payload, clock);
            }
            Start::Adopt => driver.begin(Stopwatch::start()),
        }
        driver.run().await;
    };
    core.tasks.spawn(work.instrument(span));
}

fn view_of(record: &MicrovmRecord, failed_wakes: u32) -> View {
    View {
        phase: record.phase,
        since: record.phase_since,
        reason: record.state_reason.clone(),
        failed_wakes,
        timings: Arc::new(record.timings.clone()),
    }
}

impl Driver {
    async fn run(mut self) {
        let stop = self.core.stop.clone();
        loop {
            if self.record.phase == Phase::Terminated || (stop.is_cancelled() && self.under_way.is_none()) {
                break;
            }
            tokio::select! {
                command = self.commands.recv(), if !stop.is_cancelled() => match command {
                    Some(command) => self.take(command).await,
                    None => break,
                },
                result = ended(&mut self.under_way) => self.finish(result).await,
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
        self.core.microvms.remove(self.record.id);
    }

    async fn take(&mut self, command: Command) {
        let answer = self.apply(command.request).await;
        if let Some(reply) = command.reply {
            // A caller that has gone away needs no answer.
            let _ = reply.send(answer);
        }
    }

    async fn apply(&mut self, request: Request) -> Result<(), RequestError> {
        let clock = Stopwatch::start();
        let (event, reason) = match request {
            Request::Suspend => (Event::Suspend, None),
            Request::SuspendIdle { idle_since, reason } => {
                if self.record.phase != Phase::Running || self.touched.load(Ordering::Relaxed) > idle_since.0 {
                    return Ok(());
                }
                (Event::Suspend, Some(reason))
            }
            Request::Resume => (Event::Resume, None),
            Request::Terminate { reason } => (Event::Terminate, reason),
            Request::Exited { reason } => (Event::Exited, Some(reason)),
        };
        match react(self.record.phase, event) {
            Reaction::To(phase) => self.intend(phase, reason, clock).await,
            Reaction::Already | Reaction::Ignore => Ok(()),
            Reaction::Refuse(conflict) => Err(RequestError::Refused(conflict)),
            Reaction::Defer => {
                self.deferred_exit = reason;
                Ok(())
            }
        }
    }

    /// Writes where it is going, then begins the work of going there.
    async fn intend(&mut self, phase: Phase, reason: Option<String>, mut clock: Stopwatch) -> Result<(), RequestError> {
        if let Err(error) = before_intent(phase).await {
            tracing::error!(?phase, %error, "an intent could not be written");
            return Err(RequestError::NotRecorded);
        }
        let mut intended = self.record.clone();
        enter(&mut intended, phase, reason, self.core.clock.now());
        match journal::intent(&self.core, &intended).await {
            Ok(()) => {}
            Err(journal::IntentError::NoRoom) => return Err(RequestError::NoRoom),
            Err(error @ journal::IntentError::Store(_)) => {
                tracing::error!(?phase, error = &error as &dyn std::error::Error, "an intent could not be written");
                return Err(RequestError::NotRecorded);
            }
        }
        tracing::info!(from = ?self.record.phase, to = ?phase, reason = intended.state_reason, "transition");
        self.record = intended;
        clock.step("intent_written");
        self.publish();
        self.begin(clock);
        Ok(())
    }

    /// Begins the work the phase stands for, unless a call is still under way: then its end does.
    fn begin(&mut self, clock: Stopwatch) {
        if self.under_way.is_some() {
            return;
        }
        match self.record.phase {
            Phase::Suspending => self.begin_suspend(clock),
            Phase::Resuming => self.begin_resume(clock),
            Phase::Terminating => self.begin_stop(clock),
            // A launch begins with its payload, in `start`.
            Phase::Launching | Phase::Running | Phase::Suspended | Phase::Terminated => {}
        }
    }

    fn machine(&self) -> MachineId {
        MachineId(self.record.id.0)
    }

    fn begin_launch(&mut self, payload: Option<String>, clock: Stopwatch) {
        let host = self.core.host.clone();
        let Some(image) = ImageKey::new(self.record.image_key.clone()) else {
            unreachable!("image keys are a uuid and a number, which fit a directory name");
        };
        let run = hooks::call(&self.record.settings.hooks, Hook::Run).map(|call| (call, payload));
        let request = LaunchMachine { machine: self.machine(), image, name: self.record.id.to_string(), run };
        self.call(Kind::Launch, clock, async move { host.launch(request).await });
    }

    fn begin_suspend(&mut self, clock: Stopwatch) {
        let host = self.core.host.clone();
        let suspend = hooks::call(&self.record.settings.hooks, Hook::Suspend);
        let request = SuspendMachine { machine: self.machine(), suspend };
        self.call(Kind::Suspend, clock, async move { host.suspend(request).await.map(|suspended| suspended.steps) });
    }

    fn begin_resume(&mut self, clock: Stopwatch) {
        let host = self.core.host.clone();
        let resume = hooks::call(&self.record.settings.hooks, Hook::Resume);
        let request = ResumeMachine { machine: self.machine(), resume };
        self.call(Kind::Resume, clock, async move { host.resume(request).await });
    }

    fn begin_stop(&mut self, clock: Stopwatch) {
        let host = self.core.host.clone();
        let terminate = hooks::call(&self.record.settings.hooks, Hook::Terminate).filter(|_| self.application_runs);
        let mut request = StopMachine { machine: self.machine(), terminate };
        self.call(Kind::Stop, clock, async move {
            for pause in STOP_RETRIES {
                let attempt = async {
                    failpoints::TERMINATE_RECORDED.pass().await.map_err(HostError::from)?;
                    host.stop(request.clone()).await
                };
                match attempt.await {
                    Ok(steps) => return Ok(steps),
                    Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "a stop failed"),
                }
                // `/terminate` is called once.
                request.terminate = None;
                tokio::time::sleep(pause).await;
            }
            host.stop(request).await
        });
    }

    fn call(&mut self, kind: Kind, mut clock: Stopwatch, work: impl Future<Output = Result<StepTimings, HostError>> + Send + 'static) {
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
        self.under_way = Some(UnderWay { kind, work: Box::pin(bounded), clock });
    }

    /// A host call has ended: write what it means, then begin what has been waiting for its end.
    async fn finish(&mut self, (kind, mut clock, result): Ended) {
        clock.skip();
        let [_, outcome, written] = kind.failpoints();
        outcome.reach().await;
        self.note_application(kind, result.is_ok());
        if kind == Kind::Resume && result.is_err() {
            self.failed_wakes += 1;
        }
        let reason = result.as_ref().err().map(|error| {
            tracing::warn!(step = kind.name(), error = error as &dyn std::error::Error, "a step failed on the host");
            failure_reason(kind.name(), error)
        });
        match react(self.record.phase, kind.event(&result)) {
            Reaction::To(phase) => {
                enter(&mut self.record, phase, reason, self.core.clock.now());
                if phase == Phase::Running {
                    self.touched.fetch_max(self.record.phase_since.0, Ordering::Relaxed);
                }
            }
            Reaction::Already | Reaction::Refuse(_) | Reaction::Defer | Reaction::Ignore => {}
        }
        let steps = result.unwrap_or_default();
        self.keep_timings(kind, &clock, &steps);
        journal::outcome(&self.core.store, &self.record).await;
        written.reach().await;
        clock.step("outcome_written");
        self.keep_timings(kind, &clock, &steps);
        tracing::info!(operation = kind.name(), phase = ?self.record.phase, steps = %self.record.timings[kind.name()], "host call ended");
        self.publish();
        self.begin(Stopwatch::start());
        self.look_at_deferred_exit().await;
    }

    fn note_application(&mut self, kind: Kind, succeeded: bool) {
        match kind {
            Kind::Launch | Kind::Resume => self.application_runs = succeeded,
            Kind::Suspend => self.application_runs = !succeeded,
            Kind::Stop => self.application_runs = false,
        }
    }

    async fn look_at_deferred_exit(&mut self) {
        let Some(reason) = self.deferred_exit.take() else { return };
        if let Err(error) = self.apply(Request::Exited { reason }).await {
            tracing::error!(%error, "an exit could not be recorded");
        }
    }

    fn keep_timings(&mut self, kind: Kind, clock: &Stopwatch, steps: &StepTimings) {
        if !self.record.timings.is_object() {
            self.record.timings = json!({});
        }
        self.record.timings[kind.name()] = clock.report(steps);
    }

    fn publish(&self) {
        self.view.send_replace(view_of(&self.record, self.failed_wakes));
    }
}

/// The record in its new phase. A reason explains the way there; that of an ending stays with what ended.
fn enter(record: &mut MicrovmRecord, phase: Phase, reason: Option<String>, now: UnixMillis) {
    let ends_as_begun = matches!((record.phase, phase), (Phase::Suspending, Phase::Suspended) | (Phase::Terminating, Phase::Terminated));
    if reason.is_some() || !ends_as_begun {
        record.state_reason = reason;
    }
    record.phase = phase;
    record.phase_since = now;
    if phase == Phase::Terminated {
        record.terminated_at = Some(now);
    }
}

async fn before_intent(phase: Phase) -> Result<(), Injected> {
    match phase {
        Phase::Suspending => failpoints::SUSPEND_INTENT.pass().await,
        Phase::Resuming => failpoints::RESUME_INTENT.pass().await,
        Phase::Terminating => failpoints::TERMINATE_INTENT.pass().await,
        Phase::Launching | Phase::Running | Phase::Suspended | Phase::Terminated => Ok(()),
    }
}

type Ended = (Kind, Stopwatch, Result<StepTimings, HostError>);

/// The end of the call under way; never, when there is none.
async fn ended(under_way: &mut Option<UnderWay>) -> Ended {
    let Some(call) = under_way else { return std::future::pending().await };
    let result = call.work.as_mut().await;
    let (kind, clock) = (call.kind, call.clock.clone());
    *under_way = None;
    (kind, clock, result)
}

fn fault(attempted: &str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HostError {
    HostError::internal(attempted)(source)
}
