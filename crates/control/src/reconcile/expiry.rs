//! Ends by the clock: `maximumDurationInSeconds`, counted while running and suspended (model); what is TERMINATED and has been listed long enough; and
//! client tokens nobody will use again.

use emberbox_store::{Phase, SteadyMillis, UnixMillis};
use emberbox_wire::ids::MicrovmId;

use crate::control::Core;
use crate::events::{Cause, Happening};
use crate::microvm::registry::{Handle, Request};

/// How long a client token is remembered; clients retry within minutes.
const CLIENT_TOKEN_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Client tokens remembered of one account, the latest: about 100 MiB of its answers.
const CLIENT_TOKENS: u32 = 100_000;

/// `true` when the MicroVM's time is over.
pub(crate) fn reconcile(core: &Core, handle: &Handle) -> bool {
    let maximum = handle.settings.maximum_duration_in_seconds;
    let over = is_over(handle.view().phase, handle.started, maximum, core.steady.now().steady);
    if over {
        let reason = format!("Maximum duration of {maximum} seconds reached");
        handle.tell(Request::End { cause: Cause::MaximumDuration, reason });
    }
    over
}

fn is_over(phase: Phase, started: SteadyMillis, maximum_seconds: u32, now: SteadyMillis) -> bool {
    let ending = matches!(phase, Phase::Terminating | Phase::Terminated);
    !ending && now.0 - started.0 >= i64::from(maximum_seconds) * 1000
}

pub(crate) async fn forget_client_tokens(core: &Core) {
    let limit = UnixMillis(core.clock.now().0 - CLIENT_TOKEN_MILLIS);
    if let Err(error) = core.store.forget_client_tokens(limit, CLIENT_TOKENS).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "old client tokens could not be deleted");
    }
}

/// Forgets TERMINATED MicroVMs and disks of lost ones that have been kept long enough.
pub(crate) async fn reap(core: &Core) {
    let lives = &core.config.lives;
    let before = |kept: std::time::Duration| SteadyMillis(core.steady.now().steady.0 - i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
    let microvms = match core.store.forget_terminated(before(lives.keep_terminated)).await {
        Ok(forgotten) => forgotten.len(),
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "terminated MicroVMs could not be forgotten");
            0
        }
    };
    let disks = reap_disks(core, before(lives.keep_lost_disks)).await;
    if microvms + disks > 0 {
        tracing::info!(microvms, disks, "reaped what was kept long enough");
        core.tell(Happening::Reaped { microvms, disks });
    }
}

async fn reap_disks(core: &Core, limit: SteadyMillis) -> usize {
    let kept = match core.host.kept().await {
        Ok(kept) => kept,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "the host could not say which disks it keeps");
            return 0;
        }
    };
    let mut reaped = 0;
    for machine in kept {
        let wanted = match core.store.microvm(MicrovmId(machine.0)).await {
            Ok(record) => record.is_some_and(|record| record.phase != Phase::Terminated || record.steady.since >= limit),
            // Not now, then.
            Err(_) => true,
        };
        if wanted {
            continue;
        }
        match core.host.discard(machine).await {
            Ok(()) => reaped += 1,
            Err(error) => tracing::warn!(%machine, error = &error as &dyn std::error::Error, "a kept disk could not be deleted"),
        }
    }
    reaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_in_every_phase_but_the_last_two() {
        for phase in Phase::ALL {
            let ending = matches!(phase, Phase::Terminating | Phase::Terminated);
            assert!(!is_over(phase, SteadyMillis(5), 10, SteadyMillis(10_004)));
            assert_eq!(is_over(phase, SteadyMillis(5), 10, SteadyMillis(10_005)), !ending, "{phase:?}");
        }
    }
}
