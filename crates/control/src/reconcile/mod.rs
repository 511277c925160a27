//! What happens without being asked for: idle policies and lifetimes by the clock, memory pressure, unasked ends of machines, what has been kept long
//! enough, and agreement with the host at start.
//!
//! Each reconciler takes no input, may run at any time and as often as it likes, and only asks the task that owns a MicroVM.

mod activity;
mod exits;
mod expiry;
mod idle;
pub(crate) mod orphans;
pub(crate) mod pressure;

use std::sync::Arc;
use std::time::Duration;

use emberbox_store::SteadyMillis;

use crate::control::{Core, StartError};
use crate::events::Happening;
use crate::{connector, image};

/// How exact policies are: their shortest duration is a second.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the machines' CPU time and the host's memory.
const LOOK_SECONDS: i64 = 5;
/// The steady clock and the last traffic of each MicroVM are stored this often: what a crash forgets of them.
pub(crate) const CHECKPOINT_SECONDS: i64 = 30;
/// A stop that failed again and again is tried again this often, and a record without a task is looked for.
const SWEEP_SECONDS: i64 = 60;
/// What is kept for hours is looked at this often.
const REAP_SECONDS: i64 = 300;

/// Puts records and machines in agreement, then begins the reconcilers' tasks.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), StartError> {
    // Before the inventory, so that no end falls between them.
    let exits = core.host.exits();
    let mut found = orphans::reconcile(core).await?;
    found.builds = image::driver::recover(core).await?;
    connector::recover(core).await?;
    let found = serde_json::to_value(&found).unwrap_or_default();
    tracing::info!(%found, "records and machines are in agreement");
    core.tell(Happening::Started { found });
    core.tasks.spawn(exits::follow(core.clone(), exits));
    core.tasks.spawn(by_the_clock(core.clone()));
    Ok(())
}

/// Something done again and again, by the steady clock.
struct Every {
    millis: i64,
    last: SteadyMillis,
}

impl Every {
    fn seconds(seconds: i64, now: SteadyMillis) -> Self {
        Self { millis: seconds * 1000, last: now }
    }

    fn is_due(&mut self, now: SteadyMillis) -> bool {
        let due = now.0 - self.last.0 >= self.millis;
        if due {
            self.last = now;
        }
        due
    }
}

async fn by_the_clock(core: Arc<Core>) {
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let began = core.steady.now().steady;
    let every = |seconds| Every::seconds(seconds, began);
    let (mut look, mut checkpoint, mut sweep, mut reap) =
        (every(LOOK_SECONDS), every(CHECKPOINT_SECONDS), every(SWEEP_SECONDS), every(REAP_SECONDS));
    let (mut sampler, mut suspects) = (activity::Sampler::default(), orphans::Suspects::default());
    loop {
        tokio::select! {
            () = core.stop.cancelled() => break,
            _ = timer.tick() => {}
            () = core.poke.notified() => {}
        }
        let now = core.steady.now().steady;
        if look.is_due(now) {
            sampler.look(&core).await;
            pressure::reconcile(&core).await;
        }
        for handle in core.microvms.all() {
            // An end comes before a suspension that the same second asks for.
            if !expiry::reconcile(&core, &handle) {
                idle::reconcile(&core, &handle);
            }
        }
        if core.steady.jumped().is_some() || checkpoint.is_due(now) {
            keep_time(&core, false).await;
        }
        if sweep.is_due(now) || core.take_suspicion() {
            orphans::sweep(&core, &mut suspects).await;
        }
        if reap.is_due(now) {
            expiry::forget_client_tokens(&core).await;
            expiry::reap(&core).await;
        }
    }
    keep_time(&core, true).await;
}

/// Stores the steady clock and the last traffic of each MicroVM.
async fn keep_time(core: &Core, orderly: bool) {
    if let Some(millis) = core.steady.jumped() {
        tracing::warn!(seconds = millis as f64 / 1000.0, "wall time jumped; lifetimes and policies are not affected");
        core.tell(Happening::WallClock { jumped_seconds: millis as f64 / 1000.0 });
    }
    let touched: Vec<_> = core.microvms.all().iter().map(|handle| (handle.id, handle.touched())).collect();
    let kept = async {
        core.store.keep_touched(&touched).await?;
        core.steady.checkpoint(&core.store, orderly).await
    };
    if let Err(error) = kept.await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the time of the last traffic could not be stored");
    }
}
