//! Short of memory: nothing new is launched (`operations/run_microvm.rs`), and MicroVMs that a request would wake are suspended before their time, the longest idle first (ours). A suspended MicroVM costs disk
//! alone. Those without auto-resume are left alone: nobody would wake them.

use emberbox_host::HostMemory;
use emberbox_store::{Phase, SteadyMillis};

use crate::control::Core;
use crate::events::Cause;
use crate::microvm::registry::{Handle, Request};

/// One that has just answered is not idle, however short memory is.
const IDLE_MILLIS: i64 = 10_000;
/// Suspending needs memory and disk itself: so many at a time.
const AT_ONCE: usize = 2;

/// How many percent of the host's memory are available, when that is too little.
pub(crate) async fn low_memory(core: &Core) -> Option<u32> {
    let limit = core.config.lives.low_memory_percent;
    if limit == 0 {
        return None;
    }
    match core.host.memory().await {
        Ok(memory) => Some(available_percent(memory)).filter(|available| *available < limit),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the host could not say how much memory is left");
            None
        }
    }
}

pub(super) async fn reconcile(core: &Core) {
    let Some(available) = low_memory(core).await else { return };
    let handles = core.microvms.all();
    let suspending = handles.iter().filter(|handle| handle.view().phase == Phase::Suspending).count();
    let now = core.steady.now().steady;
    let mut idle: Vec<_> = handles.into_iter().filter_map(|handle| idle_since(&handle, now).map(|since| (since, handle))).collect();
    idle.sort_by_key(|(since, _)| *since);
    for (idle_since, handle) in idle.into_iter().take(AT_ONCE.saturating_sub(suspending)) {
        tracing::warn!(microvm = %handle.id, available_percent = available, "memory is short: an idle MicroVM is suspended");
        let reason = format!("Suspended before its time to free memory of the host, of which {available} % was available");
        handle.tell(Request::SuspendIdle { idle_since, cause: Cause::MemoryPressure, reason });
    }
}

fn available_percent(memory: HostMemory) -> u32 {
    let percent = u128::from(memory.available_bytes) * 100 / u128::from(memory.total_bytes.max(1));
    u32::try_from(percent).unwrap_or(100)
}

/// Since when it could be suspended without anybody's notice; `None` when it could not.
fn idle_since(handle: &Handle, now: SteadyMillis) -> Option<SteadyMillis> {
    let view = handle.view();
    let wakes = handle.settings.idle_policy.is_some_and(|policy| policy.auto_resume_enabled && policy.suspended_duration_seconds > 0);
    let since = handle.touched().max(handle.busy()).max(view.since);
    (view.phase == Phase::Running && wakes && now.0 - since.0 >= IDLE_MILLIS).then_some(since)
}
