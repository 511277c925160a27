//! Which MicroVMs are computing, for idle policies that ask: the CPU time of a machine's process between two looks, as the host counts it.
//!
//! The process's time and not what the guest says of itself: it costs the guest nothing, cannot be refused by it, and is the same on every engine. What
//! an idle guest uses (timer ticks, under emulation their translation too) lies below the threshold; `docs/decisions/0042-computing-is-not-idle.md` has
//! figures.

use std::collections::HashMap;
use std::time::Duration;

use emberbox_store::{IdleSignal, Phase, SteadyMillis};
use emberbox_wire::ids::MicrovmId;

use crate::control::Core;
use crate::microvm::registry::Handle;

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Sampler(HashMap<MicrovmId, Sample>);

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: SteadyMillis,
    cpu: Duration,
}

impl Sampler {
    /// Notes on each MicroVM's handle that it is busy, if it is.
    pub(super) async fn look(&mut self, core: &Core) {
        let now = core.steady.now().steady;
        let mut seen = HashMap::new();
        for handle in core.microvms.all().into_iter().filter(is_asked_for) {
            let cpu = match core.host.usage(handle.machine()).await {
                Ok(usage) => usage.cpu,
                // Suspended or ended since: there is nothing to see.
                Err(error) => {
                    tracing::debug!(microvm = %handle.id, error = &error as &dyn std::error::Error, "no usage");
                    continue;
                }
            };
            let sample = Sample { at: now, cpu };
            if self.0.get(&handle.id).is_some_and(|before| is_busy(*before, sample, core.config.lives.busy_percent)) {
                handle.note_busy(now);
            }
            seen.insert(handle.id, sample);
        }
        self.0 = seen;
    }
}

fn is_asked_for(handle: &Handle) -> bool {
    let settings = &handle.settings;
    settings.idle_policy.is_some() && settings.idle_signal == IdleSignal::TrafficAndCpu && handle.view().phase == Phase::Running
}

/// Whether it used `percent` of one CPU or more between two looks. A process that has used less than before is another one.
fn is_busy(before: Sample, now: Sample, percent: u32) -> bool {
    let Some(used) = now.cpu.checked_sub(before.cpu) else { return false };
    let passed = u128::try_from(now.at.0 - before.at.0).unwrap_or_default();
    passed > 0 && used.as_millis() * 100 >= passed * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_a_share_of_one_cpu() {
        let sample = |at, cpu| Sample { at: SteadyMillis(at), cpu: Duration::from_millis(cpu) };
        assert!(!is_busy(sample(0, 100), sample(5_000, 599), 10));
        assert!(is_busy(sample(0, 100), sample(5_000, 600), 10));
        assert!(!is_busy(sample(0, 5_000), sample(5_000, 600), 10), "another process");
        assert!(!is_busy(sample(5_000, 0), sample(5_000, 600), 10), "no time has passed");
    }
}
