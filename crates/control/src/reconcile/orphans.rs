//! Agreement of records and machines: what was begun is finished or undone, what runs is adopted, what nobody owns is stopped. At start for all;
//! later for a MicroVM whose task panicked, for a record that has lost its task, and for the machine of a TERMINATED MicroVM that could not be stopped.
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

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use emberbox_host::{HostRecovery, Machine, MachineId, MachineStatus, StopMachine};
use emberbox_store::{MicrovmRecord, Phase, SteadyMillis};
use emberbox_wire::ids::MicrovmId;
use serde::Serialize;

use super::CHECKPOINT_SECONDS;
use crate::control::{Core, StartError};
use crate::events::Cause;
use crate::image::driver::RecoveredBuilds;
use crate::microvm::driver::{self, Start};

/// Pauses before records and host are asked again about a MicroVM whose task panicked.
const ADOPT_RETRIES: [Duration; 4] = [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(2), Duration::from_secs(10)];

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

/// What a start found and did: one line of the log, one event.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Found {
    pub(crate) running: u32,
    pub(crate) suspended: u32,
    /// Suspensions that go on.
    pub(crate) suspensions_continued: u32,
    /// Changes that a crash had cut off, in agreement with the host now.
    pub(crate) phases_corrected: u32,
    pub(crate) launches_cut_off: u32,
    pub(crate) lost: u32,
    pub(crate) terminations_continued: u32,
    pub(crate) machines_without_record: u32,
    pub(crate) builds: RecoveredBuilds,
    pub(crate) host: HostRecovery,
}

impl Found {
    fn count(&mut self, found: Phase, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Adopt(Phase::Suspending) => &mut self.suspensions_continued,
            Verdict::Adopt(Phase::Suspended) => &mut self.suspended,
            Verdict::Adopt(_) => &mut self.running,
            Verdict::Stop(Some(LAUNCH_CUT_OFF)) => &mut self.launches_cut_off,
            Verdict::Stop(Some(_)) => &mut self.lost,
            Verdict::Stop(None) => &mut self.terminations_continued,
        };
        *counter += 1;
        self.phases_corrected += u32::from(matches!(verdict, Verdict::Adopt(phase) if phase != found));
    }
}

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
pub(crate) async fn reconcile(core: &Arc<Core>) -> Result<Found, StartError> {
    let mut found = Found { host: core.host.recovery().await, ..Found::default() };
    let mut machines = inventory(core).await?;
    for mut record in core.store.live_microvms().await? {
        let machine = machines.remove(&MachineId(record.id.0));
        // Nobody knows of traffic between the last checkpoint and a crash.
        if !core.steady.was_orderly() {
            let latest = core.steady.now().steady.0.min(record.steady.touched.0 + CHECKPOINT_SECONDS * 1000);
            record.steady.touched = SteadyMillis(latest);
        }
        let phase = record.phase;
        found.count(phase, adopt(core, record, machine).await?);
    }
    for machine in machines.into_keys() {
        found.machines_without_record += 1;
        tracing::warn!(%machine, "a machine without a record is stopped");
        let core = core.clone();
        core.clone().tasks.spawn(async move {
            if let Err(error) = core.host.stop(StopMachine { machine, terminate: None, keep_disk: false }).await {
                tracing::error!(%machine, error = &error as &dyn std::error::Error, "a machine without a record could not be stopped");
            }
        });
    }
    Ok(found)
}

async fn inventory(core: &Core) -> Result<HashMap<MachineId, MachineStatus>, StartError> {
    Ok(core.host.inventory().await?.into_iter().map(|machine| (machine.machine, machine.status)).collect())
}

/// As at a start, for one MicroVM: its task is gone.
pub(crate) async fn adopt_again(core: &Arc<Core>, id: MicrovmId) {
    for pause in ADOPT_RETRIES {
        tokio::time::sleep(pause).await;
        match try_adopt_again(core, id).await {
            Ok(()) => return,
            Err(error) => tracing::error!(microvm = %id, error = &error as &dyn std::error::Error, "a MicroVM is without a task"),
        }
    }
    core.microvms.remove(id);
    // The sweep comes back to it.
    core.suspect();
}

async fn try_adopt_again(core: &Arc<Core>, id: MicrovmId) -> Result<(), StartError> {
    let Some(record) = core.store.microvm(id).await?.filter(|record| record.phase != Phase::Terminated) else {
        core.microvms.remove(id);
        return Ok(());
    };
    let machine = inventory(core).await?.remove(&MachineId(id.0));
    adopt(core, record, machine).await.map(|_| ())
}

/// Records without a task at the last sweep. One that is being made has none for an instant.
#[derive(Debug, Default)]
pub(crate) struct Suspects(HashSet<MicrovmId>);

/// Stops machines of MicroVMs that are TERMINATED, whose stop had failed, and gives a task to records that have none. Machines without a record may be a
/// build's.
pub(crate) async fn sweep(core: &Arc<Core>, suspects: &mut Suspects) {
    if let Err(error) = sweep_machines(core).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "left-over machines could not be looked for");
    }
    match sweep_records(core, suspects).await {
        Ok(()) => {}
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "records without a task could not be looked for"),
    }
}

async fn sweep_machines(core: &Core) -> Result<(), StartError> {
    for Machine { machine, .. } in core.host.inventory().await? {
        let id = MicrovmId(machine.0);
        let terminated =
            core.microvms.get(id).is_none() && core.store.microvm(id).await?.is_some_and(|record| record.phase == Phase::Terminated);
        if terminated {
            tracing::warn!(microvm = %id, "the machine of a terminated MicroVM is stopped");
            core.host.stop(StopMachine { machine, terminate: None, keep_disk: false }).await?;
        }
    }
    Ok(())
}

async fn sweep_records(core: &Arc<Core>, suspects: &mut Suspects) -> Result<(), StartError> {
    let live = core.store.live_microvms().await?;
    let without: HashSet<MicrovmId> = live.iter().map(|record| record.id).filter(|id| core.microvms.get(*id).is_none()).collect();
    for id in without.intersection(&suspects.0) {
        tracing::warn!(microvm = %id, "a record without a task is put in agreement with its machine");
        try_adopt_again(core, *id).await?;
    }
    suspects.0 = without.into_iter().filter(|id| core.microvms.get(*id).is_none()).collect();
    if !suspects.0.is_empty() {
        // Looked at again at the next tick.
        core.suspect();
    }
    Ok(())
}

async fn adopt(core: &Arc<Core>, mut record: MicrovmRecord, machine: Option<MachineStatus>) -> Result<Verdict, StartError> {
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
        let now = core.steady.now();
        record.phase = phase;
        record.phase_since = now.wall;
        record.steady.since = now.steady;
        core.store.update_microvm(&record).await?;
        core.teller.microvm(&record, Some(found), Cause::Restart, now.wall);
    }
    driver::start(core, record, Start::Adopt { died: verdict == Verdict::Stop(Some(LOST)) });
    Ok(verdict)
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
