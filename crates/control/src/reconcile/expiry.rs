//! Ends by the clock: `maximumDurationInSeconds`, counted while running and suspended (model); and client tokens nobody will use again.

use emberbox_store::{Phase, UnixMillis};

use crate::control::Core;
use crate::microvm::registry::{Handle, Request};

/// How long a client token is remembered; clients retry within minutes.
const CLIENT_TOKEN_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Client tokens remembered of one account, the latest: about 100 MiB of its answers.
const CLIENT_TOKENS: u32 = 100_000;

/// `true` when the MicroVM's time is over.
pub(crate) fn reconcile(core: &Core, handle: &Handle) -> bool {
    let maximum = handle.settings.maximum_duration_in_seconds;
    let over = is_over(handle.view().phase, handle.started_at, maximum, core.clock.now());
    if over {
        handle.tell(Request::Terminate { reason: Some(format!("Maximum duration of {maximum} seconds reached")) });
    }
    over
}

fn is_over(phase: Phase, started_at: UnixMillis, maximum_seconds: u32, now: UnixMillis) -> bool {
    let ending = matches!(phase, Phase::Terminating | Phase::Terminated);
    !ending && now.0 - started_at.0 >= i64::from(maximum_seconds) * 1000
}

pub(crate) async fn forget_client_tokens(core: &Core) {
    let limit = UnixMillis(core.clock.now().0 - CLIENT_TOKEN_MILLIS);
    if let Err(error) = core.store.forget_client_tokens(limit, CLIENT_TOKENS).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "old client tokens could not be deleted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_in_every_phase_but_the_last_two() {
        for phase in Phase::ALL {
            let ending = matches!(phase, Phase::Terminating | Phase::Terminated);
            assert!(!is_over(phase, UnixMillis(5), 10, UnixMillis(10_004)));
            assert_eq!(is_over(phase, UnixMillis(5), 10, UnixMillis(10_005)), !ending, "{phase:?}");
        }
    }
}
