//! The clock that lifetimes and policies are counted on: it never goes back, jumps of wall time do not move it, and it goes on through restarts of the
//! daemon and suspensions and reboots of the host. `docs/decisions/0041-a-clock-for-lifetimes.md`.
//!
//! ```text
//!  same boot:  steady = anchor.steady + (CLOCK_BOOTTIME - anchor.since_boot)
//!  rebooted:   steady = anchor.steady + max(0, wall time - anchor.wall)      nobody but the wall clock knows how long the host was off
//! ```

use std::sync::{Arc, Mutex, PoisonError};

use emberbox_store::{SteadyMillis, Store, StoreError, UnixMillis};
use serde::{Deserialize, Serialize};

use crate::clock::Clock;

/// The stored anchor.
const SETTING: &str = "steady-clock";
/// Wall time is disciplined by a few milliseconds a second; more than this between two looks is a jump.
const JUMP_MILLIS: i64 = 2_000;

/// One moment on every clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Anchor {
    boot: String,
    since_boot: i64,
    wall: i64,
    steady: i64,
    /// Stored by a daemon that had done its work.
    #[serde(default)]
    orderly: bool,
}

/// Now, for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) wall: UnixMillis,
    pub(crate) steady: SteadyMillis,
}

pub(crate) struct SteadyClock {
    clock: Arc<dyn Clock>,
    anchor: Mutex<Anchor>,
    was_orderly: bool,
}

impl SteadyClock {
    /// Goes on from what was last stored; the first one ever begins at the wall time.
    pub(crate) async fn start(clock: Arc<dyn Clock>, store: &Store) -> Result<Self, StoreError> {
        let stored: Option<Anchor> = store.setting(SETTING).await?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let anchor = next(stored.as_ref(), &*clock);
        if let Some(stored) = stored.as_ref().filter(|stored| stored.boot != anchor.boot) {
            tracing::info!(off_seconds = (anchor.steady - stored.steady) / 1000, "the host was booted since the daemon last ran");
        }
        let was_orderly = stored.is_none_or(|stored| stored.orderly);
        let steady = Self { clock, anchor: Mutex::new(anchor), was_orderly };
        steady.checkpoint(store, false).await?;
        Ok(steady)
    }

    pub(crate) fn now(&self) -> Moment {
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let now = next(Some(&anchor), &*self.clock);
        Moment { wall: UnixMillis(now.wall), steady: SteadyMillis(now.steady) }
    }

    /// Whether the daemon before this one stopped as asked: then nothing it knew is missing.
    pub(crate) fn was_orderly(&self) -> bool {
        self.was_orderly
    }

    /// Stores where the clock is. After a reboot it goes on from the last one.
    pub(crate) async fn checkpoint(&self, store: &Store, orderly: bool) -> Result<(), StoreError> {
        let now = {
            let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
            *anchor = Anchor { orderly, ..next(Some(&anchor), &*self.clock) };
            anchor.clone()
        };
        let bytes = serde_json::to_vec(&now).map_err(StoreError::Encode)?;
        store.set_setting(SETTING, &bytes).await
    }

    /// By how many milliseconds wall time has jumped since the last checkpoint.
    pub(crate) fn jumped(&self) -> Option<i64> {
        let anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let now = next(Some(&anchor), &*self.clock);
        let jump = (now.wall - anchor.wall) - (now.steady - anchor.steady);
        (jump.abs() > JUMP_MILLIS).then_some(jump)
    }
}

/// The anchor moved to now.
fn next(from: Option<&Anchor>, clock: &dyn Clock) -> Anchor {
    let (wall, up) = (clock.now().0, clock.since_boot());
    let since_boot = i64::try_from(up.time.as_millis()).unwrap_or(i64::MAX);
    let steady = match from {
        None => wall,
        Some(anchor) if anchor.boot == up.boot => anchor.steady + (since_boot - anchor.since_boot).max(0),
        Some(anchor) => anchor.steady + (wall - anchor.wall).max(0),
    };
    Anchor { boot: up.boot, since_boot, wall, steady, orderly: false }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::testing::ManualClock;
    use std::time::Duration;

    #[tokio::test]
    async fn it_counts_what_passes_and_nothing_else() {
        let (store, clock) = (Store::in_memory().await.unwrap(), Arc::new(ManualClock::default()));
        let steady = SteadyClock::start(clock.clone(), &store).await.unwrap();
        let began = steady.now().steady.0;
        let passed = |steady: &SteadyClock| (steady.now().steady.0 - began) / 1000;
        clock.advance(Duration::from_secs(10));
        clock.jump_wall(-86_400);
        assert_eq!((passed(&steady), steady.jumped()), (10, Some(-86_400_000)));
        steady.checkpoint(&store, false).await.unwrap();
        assert_eq!(steady.jumped(), None);
        clock.jump_wall(500_000);
        clock.advance(Duration::from_secs(5));
        // A restart of the daemon, wherever the wall clock is.
        let steady = SteadyClock::start(clock.clone(), &store).await.unwrap();
        assert_eq!(passed(&steady), 15);
        clock.reboot(Duration::from_secs(100));
        let steady = SteadyClock::start(clock.clone(), &store).await.unwrap();
        assert_eq!(passed(&steady), 115, "the time the host was off is lived time");
        clock.jump_wall(-1_000_000);
        clock.reboot(Duration::from_secs(100));
        let steady = SteadyClock::start(clock.clone(), &store).await.unwrap();
        assert_eq!(passed(&steady), 115, "it never goes back");
    }
}
