//! Agreement of records and machines after a restart: what was begun is finished or undone, what runs is adopted, what nobody owns is stopped.
//! Now and then, also, the machine of a TERMINATED MicroVM that could not be stopped in its time.
//!
//! | record | machine running | suspended | lost or gone |
//! |---|---|---|---|
//! | LAUNCHING | stop | stop | stop |
//! | RUNNING | adopt | adopt as SUSPENDED | stop |
//! | SUSPENDING | suspend again | adopt as SUSPENDED | stop |
//! | SUSPENDED | adopt as RUNNING | adopt | stop |
//! | RESUMING | adopt as RUNNING | adopt as SUSPENDED | stop |
//! | TERMINATING | stop | stop | stop |
//!
//! A launch cut off cannot be finished: its payload is never written down, and whether `/run` was heard is not known.

use std::collections::HashMap;
use std::sync::Arc;

use emberbox_host::{Machine, MachineId, MachineStatus, StopMachine};
use emberbox_store::{MicrovmRecord, Phase};
use emberbox_wire::ids::MicrovmId;

use crate::control::{Core, StartError};
use crate::microvm::driver::{self, Start};

/// What becomes of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Its task goes on from this phase.
    Adopt(Phase),
    /// It ends, for this reason unless it was ending anyway.
    Stop(Option<&'static str>),
}

const LAUNCH_CUT_OFF: &str = "INTERNAL_PLATFORM_ERROR: the daemon restarted during the launch";
const LOST: &str = "INTERNAL_PLATFORM_ERROR: the MicroVM did not survive a restart of the host";

fn verdict(phase: Phase, machine: Option<MachineStatus>) -> Verdict {
    let running = machine == Some(MachineStatus::Running);
    let gone = matches!(machine, Some(MachineStatus::Lost) | None);
    match phase {
        Phase::Launching => Verdict::Stop(Some(LAUNCH_CUT_OFF)),
        Phase::Terminating => Verdict::Stop(None),
        // Not among the living, whose records alone are asked about.
        Phase::Terminated => Verdict::Stop(None),
        Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming if gone => Verdict::Stop(Some(LOST)),
        Phase::Suspending if running => Verdict::Adopt(Phase::Suspending),
        Phase::Running | Phase::Suspended | Phase::Resuming if running => Verdict::Adopt(Phase::Running),
        Phase::Running | Phase::Suspending | Phase::Suspended | Phase::Resuming => Verdict::Adopt(Phase::Suspended),
    }
}

/// Returns when every decision is on record; stops go on in the MicroVMs' tasks.
pub(crate) async fn reconcile(core: &Arc<Core>) -> Result<(), StartError> {
    let mut machines: HashMap<_, _> = core.host.inventory().await?.into_iter().map(|machine| (machine.machine, machine.status)).collect();
    for record in core.store.live_microvms().await? {
        let machine = machines.remove(&MachineId(record.id.0));
        adopt(core, record, machine).await?;
    }
    for machine in machines.into_keys() {
        tracing::warn!(%machine, "a machine without a record is stopped");
        let core = core.clone();
        core.clone().tasks.spawn(async move {
            if let Err(error) = core.host.stop(StopMachine { machine, terminate: None }).await {
                tracing::error!(%machine, error = &error as &dyn std::error::Error, "a machine without a record could not be stopped");
            }
        });
    }
    Ok(())
}

/// Stops machines of MicroVMs that are TERMINATED, whose stop had failed. Others without a record may be a build's.
pub(crate) async fn sweep(core: &Core) {
    if let Err(error) = try_sweep(core).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "left-over machines could not be looked for");
    }
}

async fn try_sweep(core: &Core) -> Result<(), StartError> {
    for Machine { machine, .. } in core.host.inventory().await? {
        let id = MicrovmId(machine.0);
        let terminated =
            core.microvms.get(id).is_none() && core.store.microvm(id).await?.is_some_and(|record| record.phase == Phase::Terminated);
        if terminated {
            tracing::warn!(microvm = %id, "the machine of a terminated MicroVM is stopped");
            core.host.stop(StopMachine { machine, terminate: None }).await?;
        }
    }
    Ok(())
}

async fn adopt(core: &Arc<Core>, mut record: MicrovmRecord, machine: Option<MachineStatus>) -> Result<(), StartError> {
    let found = record.phase;
    let verdict = verdict(found, machine);
    let phase = match verdict {
        Verdict::Adopt(phase) => phase,
        Verdict::Stop(reason) => {
            record.state_reason = reason.map(str::to_owned).or(record.state_reason);
            Phase::Terminating
        }
    };
    if phase != found {
        tracing::warn!(microvm = %record.id, ?found, ?machine, ?phase, "a record was put in agreement with its machine");
        record.phase = phase;
        record.phase_since = core.clock.now();
        core.store.update_microvm(&record).await?;
    }
    driver::start(core, record, Start::Adopt);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINES: [Option<MachineStatus>; 4] =
        [None, Some(MachineStatus::Running), Some(MachineStatus::Suspended), Some(MachineStatus::Lost)];

    #[test]
    fn nothing_is_adopted_that_the_host_does_not_have() {
        for phase in Phase::ALL {
            for machine in MACHINES {
                let allowed: &[Phase] = match machine {
                    Some(MachineStatus::Running) => &[Phase::Running, Phase::Suspending],
                    Some(MachineStatus::Suspended) => &[Phase::Suspended],
                    Some(MachineStatus::Lost) | None => &[],
                };
                if let Verdict::Adopt(to) = verdict(phase, machine) {
                    assert!(allowed.contains(&to), "{phase:?} {machine:?} {to:?}");
                }
            }
        }
    }

    #[test]
    fn no_suspended_state_is_lost() {
        for phase in [Phase::Running, Phase::Suspending, Phase::Suspended, Phase::Resuming] {
            assert_eq!(verdict(phase, Some(MachineStatus::Suspended)), Verdict::Adopt(Phase::Suspended));
        }
    }
}
