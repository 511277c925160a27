//! The one task that owns a MicroVM: it alone changes the record and calls the host for it, one call at a time.
//!
//! ```text
//!  ask ──▶ commands ──▶ react ──▶ intent written ──▶ reply ──▶ host call ──▶ outcome written ──▶ watch, events
//! ```
//!
//! Commands are taken while a host call is under way, so a termination is on record at once; its work begins when the call has ended. A panic ends
//! neither the MicroVM nor its task: what a command did not come to has not happened, and after one in an outcome the MicroVM is put in agreement
//! with the host as after a restart.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use emberbox_failpoints::Injected;
use emberbox_host::{HostError, StepTimings};
use emberbox_store::{MicrovmRecord, Phase, SteadyMillis, StoreError};
use futures::FutureExt;
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

use super::hooks::failure_reason;
use super::journal;
use super::registry::{COMMAND_QUEUE, Command, Handle, Request, RequestError, View};
use super::state::{Event, Reaction, react};
use super::work::{self, Ended, Kind, UnderWay};
use crate::control::Core;
use crate::events::Cause;
use crate::failpoints;
use crate::reconcile::orphans;
use crate::steady::Moment;
use crate::timings::Stopwatch;

/// How a MicroVM's task begins.
pub(crate) enum Start {
    /// RunMicrovm has just written it: launch.
    Launch { payload: Option<String>, clock: Stopwatch },
    /// The host has it in this phase, or the phase's work is to be done (again). `died`: its process has ended unasked.
    Adopt { died: bool },
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
    /// Its process ended unasked: nothing of it but its disk is left.
    died: bool,
    /// Of the change under way.
    cause: Cause,
    failed_wakes: u32,
}

/// Begins the task of a MicroVM whose record has been written, and makes it known.
pub(crate) fn start(core: &Arc<Core>, record: MicrovmRecord, how: Start) {
    let (commands, queue) = mpsc::channel(COMMAND_QUEUE);
    let (view, watched) = watch::channel(view_of(&record, 0));
    let touched = Arc::new(AtomicI64::new(record.steady.touched.0));
    core.microvms.insert(Handle::new(&record, commands, watched, touched.clone()));
    let span = tracing::info_span!("microvm", id = %record.id);
    let (id, phase) = (record.id, record.phase);
    let mut driver = Driver {
        core: core.clone(),
        record,
        commands: queue,
        view,
        touched,
        under_way: None,
        deferred_exit: None,
        application_runs: matches!(phase, Phase::Running | Phase::Suspending),
        died: false,
        cause: Cause::Restart,
        failed_wakes: 0,
    };
    let owned = core.clone();
    let life = async move {
        match how {
            Start::Launch { payload, mut clock } => {
                clock.step("queue_wait");
                driver.cause = Cause::Request;
                driver.tell(None);
                driver.under_way = Some(work::launch(&driver.core, &driver.record, payload, clock));
            }
            Start::Adopt { died } => {
                driver.died = died;
                driver.begin(Stopwatch::start());
            }
        }
        if AssertUnwindSafe(driver.run()).catch_unwind().await.is_err() {
            tracing::error!("the task of a MicroVM panicked; it is put in agreement with the host again");
            orphans::adopt_again(&owned, id).await;
        }
    };
    core.tasks.spawn(life.instrument(span));
}

fn view_of(record: &MicrovmRecord, failed_wakes: u32) -> View {
    View {
        phase: record.phase,
        since: record.steady.since,
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
                result = work::ended(&mut self.under_way) => self.finish(result).await,
                () = stop.cancelled(), if !stop.is_cancelled() => {}
            }
        }
        self.core.microvms.remove(self.record.id);
    }

    async fn take(&mut self, command: Command) {
        let answer = match AssertUnwindSafe(self.apply(command.request)).catch_unwind().await {
            Ok(answer) => answer,
            Err(_) => {
                tracing::error!("a request of a MicroVM's task panicked");
                Err(RequestError::NotRecorded)
            }
        };
        if let Some(reply) = command.reply {
            // A caller that has gone away needs no answer.
            let _ = reply.send(answer);
        }
    }

    async fn apply(&mut self, request: Request) -> Result<(), RequestError> {
        let clock = Stopwatch::start();
        let (event, cause, reason) = match request {
            Request::Suspend => (Event::Suspend, Cause::Request, None),
            Request::SuspendFor { cause, reason } => (Event::Suspend, cause, Some(reason)),
            Request::SuspendIdle { idle_since, cause, reason } => {
                if self.record.phase != Phase::Running || self.touched.load(Ordering::Relaxed) > idle_since.0 {
                    return Ok(());
                }
                (Event::Suspend, cause, Some(reason))
            }
            Request::Resume => (Event::Resume, Cause::Request, None),
            Request::Wake => (Event::Resume, Cause::Traffic, None),
            Request::Terminate => (Event::Terminate, Cause::Request, None),
            Request::End { cause, reason } => (Event::Terminate, cause, Some(reason)),
            Request::Exited { reason } => (Event::Exited, Cause::Exit, Some(reason)),
        };
        match react(self.record.phase, event) {
            Reaction::To(phase) => self.intend(phase, cause, reason, clock).await,
            Reaction::Already | Reaction::Ignore => Ok(()),
            Reaction::Refuse(conflict) => Err(RequestError::Refused(conflict)),
            Reaction::Defer => {
                self.deferred_exit = reason;
                Ok(())
            }
        }
    }

    /// Writes where it is going, then begins the work of going there.
    async fn intend(&mut self, phase: Phase, cause: Cause, reason: Option<String>, mut clock: Stopwatch) -> Result<(), RequestError> {
        if let Err(error) = before_intent(phase).await {
            tracing::error!(?phase, %error, "an intent could not be written");
            return Err(RequestError::NotRecorded);
        }
        let mut intended = self.record.clone();
        self.enter(&mut intended, phase, reason);
        match journal::intent(&self.core, &intended).await {
            Ok(()) => {}
            Err(journal::IntentError::NoRoom) => return Err(RequestError::NoRoom),
            Err(error @ journal::IntentError::Store(_)) => {
                tracing::error!(?phase, error = &error as &dyn std::error::Error, "an intent could not be written");
                let full = matches!(error, journal::IntentError::Store(StoreError::Full(_)));
                return Err(if full { RequestError::DiskFull } else { RequestError::NotRecorded });
            }
        }
        tracing::info!(from = ?self.record.phase, to = ?phase, reason = intended.state_reason, ?cause, "transition");
        let from = std::mem::replace(&mut self.record, intended).phase;
        self.cause = cause;
        self.died |= cause == Cause::Exit;
        clock.step("intent_written");
        self.publish();
        self.tell(Some(from));
        self.begin(clock);
        Ok(())
    }

    /// Begins the work the phase stands for, unless a call is still under way: then its end does.
    fn begin(&mut self, clock: Stopwatch) {
        if self.under_way.is_some() {
            return;
        }
        let (core, record) = (&self.core, &self.record);
        self.under_way = match self.record.phase {
            Phase::Suspending => Some(work::suspend(core, record, clock)),
            Phase::Resuming => Some(work::resume(core, record, clock)),
            Phase::Terminating => Some(work::stop(core, record, self.application_runs, self.died, clock)),
            // A launch begins with its payload, in `start`.
            Phase::Launching | Phase::Running | Phase::Suspended | Phase::Terminated => None,
        };
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
        let from = self.record.phase;
        self.died |= matches!(result, Err(HostError::MachineLost { .. }));
        let moved = match react(from, kind.event(&result)) {
            Reaction::To(phase) => {
                let mut record = self.record.clone();
                self.enter(&mut record, phase, reason);
                self.record = record;
                if result.is_err() && phase != Phase::Terminated {
                    self.cause = Cause::Failure;
                }
                true
            }
            Reaction::Already | Reaction::Refuse(_) | Reaction::Defer | Reaction::Ignore => false,
        };
        let steps = result.unwrap_or_default();
        self.keep_timings(kind, &clock, &steps);
        journal::outcome(&self.core.store, &self.record).await;
        written.reach().await;
        clock.step("outcome_written");
        self.keep_timings(kind, &clock, &steps);
        tracing::info!(operation = kind.name(), phase = ?self.record.phase, steps = %self.record.timings[kind.name()], "host call ended");
        self.publish();
        if moved {
            self.tell(Some(from));
        }
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

    fn enter(&self, record: &mut MicrovmRecord, phase: Phase, reason: Option<String>) {
        let now = self.core.steady.now();
        // A new run begins a new idle time.
        if phase == Phase::Running {
            self.touched.fetch_max(now.steady.0, Ordering::Relaxed);
        }
        record.steady.touched = SteadyMillis(self.touched.load(Ordering::Relaxed));
        enter(record, phase, reason, now);
    }

    fn publish(&self) {
        self.view.send_replace(view_of(&self.record, self.failed_wakes));
    }

    fn tell(&self, from: Option<Phase>) {
        self.core.teller.microvm(&self.record, from, self.cause, self.core.clock.now());
    }
}

/// The record in its new phase. A reason explains the way there; that of an ending stays with what ended.
fn enter(record: &mut MicrovmRecord, phase: Phase, reason: Option<String>, now: Moment) {
    let ends_as_begun = matches!((record.phase, phase), (Phase::Suspending, Phase::Suspended) | (Phase::Terminating, Phase::Terminated));
    if reason.is_some() || !ends_as_begun {
        record.state_reason = reason;
    }
    record.phase = phase;
    record.phase_since = now.wall;
    record.steady.since = now.steady;
    if phase == Phase::Terminated {
        record.terminated_at = Some(now.wall);
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
