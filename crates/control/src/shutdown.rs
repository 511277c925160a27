//! The daemon's orderly stop: nothing new, MicroVMs suspended where the operator wants that, host calls that have begun ended, every task joined.

use std::collections::HashSet;
use std::time::Duration;

use emberbox_store::Phase;
use emberbox_wire::ids::MicrovmId;
use tokio::time::Instant;

use crate::control::Core;
use crate::events::{Cause, Happening};
use crate::microvm::registry::Request;

/// What a stop of the daemon waits for: host calls that have begun. The longest usual one is a suspend that writes gigabytes; what takes longer is
/// finished or undone at the next start.
const DEADLINE: Duration = Duration::from_secs(60);
/// Suspensions at a time: more only share one disk.
const AT_ONCE: usize = 4;
const POLL: Duration = Duration::from_millis(20);
const REASON: &str = "Suspended because the daemon was stopped (shutdown.suspend)";

pub(crate) async fn shutdown(core: &Core) {
    core.tell(Happening::Stopping);
    if let Some(limit) = core.config.lives.suspend_at_shutdown {
        suspend_all(core, limit).await;
    }
    core.stop.cancel();
    core.tasks.close();
    if tokio::time::timeout(DEADLINE, core.tasks.wait()).await.is_err() {
        tracing::warn!(left = core.tasks.len(), "tasks were left behind at shutdown");
    }
}

/// Suspends what runs, a few at a time. One that refuses goes on running.
async fn suspend_all(core: &Core, limit: Duration) {
    let deadline = Instant::now() + limit;
    let mut asked: HashSet<MicrovmId> = HashSet::new();
    loop {
        let handles = core.microvms.all();
        let phase = |wanted: &[Phase]| handles.iter().filter(|handle| wanted.contains(&handle.view().phase)).collect::<Vec<_>>();
        let on_their_way = phase(&[Phase::Launching, Phase::Resuming, Phase::Suspending]).len();
        let mut running = phase(&[Phase::Running]);
        running.retain(|handle| !asked.contains(&handle.id));
        if on_their_way == 0 && running.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            tracing::warn!(left = running.len() + on_their_way, "not every MicroVM was suspended in time");
            break;
        }
        for handle in running.into_iter().take(AT_ONCE.saturating_sub(phase(&[Phase::Suspending]).len())) {
            asked.insert(handle.id);
            if let Err(error) = handle.ask(Request::SuspendFor { cause: Cause::Shutdown, reason: REASON.into() }).await {
                tracing::warn!(microvm = %handle.id, %error, "a MicroVM was not suspended at the stop of the daemon");
            }
        }
        tokio::time::sleep(POLL).await;
    }
    tracing::info!(asked = asked.len(), "MicroVMs were suspended because the daemon stops");
}
