//! What happens without being asked for: idle policies and lifetimes by the clock, unasked ends of machines, and agreement with the host at start.
//!
//! Each reconciler takes no input, may run at any time and as often as it likes, and only asks the task that owns a MicroVM.

mod exits;
mod expiry;
mod idle;
pub(crate) mod orphans;

use std::sync::Arc;
use std::time::Duration;

use crate::control::{Core, StartError};
use crate::{connector, image};

/// How exact policies are: their shortest duration is a second.
const TICK: Duration = Duration::from_secs(1);
/// Old client tokens are forgotten this often: they are small, and a day old.
const ROUNDS_BETWEEN_FORGETTING: u32 = 600;
/// A stop that failed again and again is tried again this often.
const ROUNDS_BETWEEN_SWEEPS: u32 = 60;

/// Puts records and machines in agreement, then begins the reconcilers' tasks.
pub(crate) async fn start(core: &Arc<Core>) -> Result<(), StartError> {
    // Before the inventory, so that no end falls between them.
    let exits = core.host.exits();
    orphans::reconcile(core).await?;
    image::driver::recover(core).await?;
    connector::recover(core).await?;
    core.tasks.spawn(exits::follow(core.clone(), exits));
    core.tasks.spawn(by_the_clock(core.clone()));
    Ok(())
}

async fn by_the_clock(core: Arc<Core>) {
    let mut timer = tokio::time::interval(TICK);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0_u32.. {
        tokio::select! {
            () = core.stop.cancelled() => break,
            _ = timer.tick() => {}
            () = core.poke.notified() => {}
        }
        for handle in core.microvms.all() {
            // An end comes before a suspension that the same second asks for.
            if !expiry::reconcile(&core, &handle) {
                idle::reconcile(&core, &handle);
            }
        }
        if round % ROUNDS_BETWEEN_SWEEPS == ROUNDS_BETWEEN_SWEEPS - 1 {
            orphans::sweep(&core).await;
        }
        if round.is_multiple_of(ROUNDS_BETWEEN_FORGETTING) {
            expiry::forget_client_tokens(&core).await;
        }
    }
}
