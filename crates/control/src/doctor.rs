//! The records against what the host was found to hold: what does not fit, and what would put it right. Decides; `emberbox doctor` shows and repairs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use emberbox_host::survey::{FoundMachine, Health, Leftover, Survey};
use emberbox_host::{ImageKey, MachineId};
use emberbox_store::{MicrovmRecord, Phase, Store, StoreError};
use emberbox_wire::ids::MicrovmId;
use emberbox_wire::microvms::VersionState;

/// Of a MicroVM that `emberbox doctor` found nothing of.
const NOTHING_LEFT: &str = "INTERNAL_PLATFORM_ERROR: emberbox doctor found nothing left of it";

/// Something that does not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub what: String,
    pub repair: Repair,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// Take it away: nobody owns it.
    Remove(Leftover),
    /// Write down that the MicroVM has ended.
    Terminate(MicrovmId),
    /// The next start of the daemon does it.
    ByStart,
    /// Only a person can; how is said here.
    ByHand(&'static str),
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove(_) => f.write_str("can be removed"),
            Self::Terminate(_) => f.write_str("can be recorded as TERMINATED"),
            Self::ByStart => f.write_str("the next start of the daemon puts it right"),
            Self::ByHand(how) => f.write_str(how),
        }
    }
}

/// What the records say.
pub struct Records {
    live: BTreeMap<MachineId, MicrovmRecord>,
    terminated: BTreeSet<MachineId>,
    /// Image versions by the name of their files.
    versions: BTreeMap<String, VersionState>,
    damage: Vec<String>,
}

impl Records {
    pub async fn read(store: &Store, survey: &Survey) -> Result<Self, StoreError> {
        let live = store.live_microvms().await?.into_iter().map(|record| (MachineId(record.id.0), record)).collect();
        let mut terminated = BTreeSet::new();
        for machine in survey.kept.iter().copied().chain(survey.machines.iter().map(|found| found.machine)) {
            if store.microvm(MicrovmId(machine.0)).await?.is_some_and(|record| record.phase == Phase::Terminated) {
                terminated.insert(machine);
            }
        }
        let versions = store.version_files().await?.into_iter().collect();
        Ok(Self { live, terminated, versions, damage: store.integrity().await? })
    }
}

/// Everything that does not fit, gravest first.
pub fn examine(records: &Records, survey: &Survey) -> Vec<Finding> {
    let mut findings: Vec<Finding> = records.damage.iter().map(|damage| finding(format!("database: {damage}"), RESTORE)).collect();
    if !survey.engine.usable {
        findings.push(finding(
            format!("engine: {}", survey.engine.choice),
            Repair::ByHand("install QEMU 7.2 or newer, or choose another engine"),
        ));
    }
    let found: BTreeMap<MachineId, &FoundMachine> = survey.machines.iter().map(|machine| (machine.machine, machine)).collect();
    findings.extend(records.live.iter().filter_map(|(machine, record)| of_record(record, found.get(machine).copied())));
    findings.extend(survey.machines.iter().filter(|machine| !records.live.contains_key(&machine.machine)).map(|machine| {
        let whose = if records.terminated.contains(&machine.machine) { "a terminated MicroVM" } else { "no MicroVM" };
        finding(format!("machine {}: its files are of {whose}", machine.machine), Repair::Remove(Leftover::Machine(machine.machine)))
    }));
    findings.extend(of_images(records, survey));
    let unowned = survey.kept.iter().filter(|machine| !records.terminated.contains(machine));
    findings.extend(
        unowned.map(|machine| finding(format!("kept files of {machine}, which no record knows"), Repair::Remove(Leftover::Kept(*machine)))),
    );
    let half_made = survey.half_made.iter();
    findings
        .extend(half_made.map(|path| finding(format!("half-made: {}", path.display()), Repair::Remove(Leftover::HalfMade(path.clone())))));
    findings.extend(
        survey
            .strays
            .iter()
            .map(|pid| finding(format!("process {pid} is a virtual machine of no MicroVM"), Repair::Remove(Leftover::Process(*pid)))),
    );
    findings.extend(of_interfaces(survey));
    findings
}

const RESTORE: Repair = Repair::ByHand("restore emberbox.db from a backup; the MicroVMs' files are untouched");

fn finding(what: String, repair: Repair) -> Finding {
    Finding { what, repair }
}

fn of_record(record: &MicrovmRecord, found: Option<&FoundMachine>) -> Option<Finding> {
    let named = |text: &str| format!("{} is {:?} and {text}", record.id, record.phase);
    let Some(found) = found else {
        return Some(finding(named("has no files"), Repair::Terminate(record.id)));
    };
    match (record.phase, found.process, &found.snapshot) {
        (_, _, Health::Damaged(reason)) => {
            Some(finding(named(&format!("its snapshot is damaged: {reason}")), Repair::ByHand("it cannot be woken: terminate it")))
        }
        (Phase::Running, Some(_), Health::Absent) | (Phase::Suspended, None, Health::Whole) => None,
        (Phase::Running | Phase::Suspended, None, Health::Absent) => {
            Some(finding(named("has neither a process nor a snapshot"), Repair::Terminate(record.id)))
        }
        // On its way, or cut off on it.
        _ => Some(finding(named("its machine is somewhere else"), Repair::ByStart)),
    }
}

fn of_images(records: &Records, survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    let found: BTreeMap<&str, &Health> = survey.images.iter().map(|image| (image.image.as_str(), &image.snapshot)).collect();
    for (key, state) in &records.versions {
        let rebuild = Repair::ByHand("update the image to build it again; MicroVMs of this version cannot be launched or woken");
        match (state, found.get(key.as_str()).copied().unwrap_or(&Health::Absent)) {
            (VersionState::Successful, Health::Absent) => findings.push(finding(format!("image {key}: its files are gone"), rebuild)),
            (VersionState::Successful, Health::Damaged(reason)) => {
                findings.push(finding(format!("image {key}: its snapshot is damaged: {reason}"), rebuild));
            }
            _ => {}
        }
    }
    for image in &survey.images {
        let owned =
            records.versions.get(image.image.as_str()).is_some_and(|state| !matches!(state, VersionState::Deleted | VersionState::Failed));
        if !owned {
            let key: ImageKey = image.image.clone();
            findings.push(finding(format!("image {key}: its files are of no image version"), Repair::Remove(Leftover::Image(key))));
        }
    }
    findings
}

/// A cell without a machine is one that waits for a launch: only without any machine and daemon is it left over.
fn of_interfaces(survey: &Survey) -> Vec<Finding> {
    let running = survey.machines.iter().filter(|machine| machine.process.is_some()).count();
    let left = if running == 0 { survey.interfaces.as_slice() } else { &[] };
    left.iter()
        .map(|name| finding(format!("interface {name} is of no machine"), Repair::Remove(Leftover::Interface(name.clone()))))
        .collect()
}

/// Writes down that a MicroVM has ended.
pub async fn terminate(store: &Store, id: MicrovmId) -> Result<(), StoreError> {
    let Some(mut record) = store.microvm(id).await?.filter(|record| record.phase != Phase::Terminated) else { return Ok(()) };
    let now = crate::clock::Clock::now(&crate::clock::SystemClock);
    record.phase = Phase::Terminated;
    record.state_reason = Some(NOTHING_LEFT.into());
    record.phase_since = now;
    record.terminated_at = Some(now);
    store.update_microvm(&record).await
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use emberbox_host::survey::{EngineReport, FoundImage};
    use uuid::Uuid;

    fn survey() -> Survey {
        let engine = EngineReport { choice: "qemu".into(), usable: true };
        Survey {
            machines: Vec::new(),
            images: Vec::new(),
            kept: Vec::new(),
            half_made: Vec::new(),
            strays: Vec::new(),
            interfaces: Vec::new(),
            engine,
        }
    }

    fn records() -> Records {
        Records { live: BTreeMap::new(), terminated: BTreeSet::new(), versions: BTreeMap::new(), damage: Vec::new() }
    }

    #[test]
    fn what_nobody_owns_can_be_removed() {
        let (machine, image) = (MachineId(Uuid::new_v4()), ImageKey::new("image-1").unwrap());
        let found = Survey {
            machines: vec![FoundMachine { machine, image: None, process: None, snapshot: Health::Absent }],
            images: vec![FoundImage { image: image.clone(), snapshot: Health::Whole }],
            kept: vec![machine],
            half_made: vec!["/work/x".into()],
            strays: vec![7],
            interfaces: vec!["eb00-1".into()],
            ..survey()
        };
        let repairs: Vec<Repair> = examine(&records(), &found).into_iter().map(|finding| finding.repair).collect();
        let expected = [
            Leftover::Machine(machine),
            Leftover::Image(image),
            Leftover::Kept(machine),
            Leftover::HalfMade("/work/x".into()),
            Leftover::Process(7),
            Leftover::Interface("eb00-1".into()),
        ];
        assert_eq!(repairs, expected.map(Repair::Remove));
    }

    #[test]
    fn what_is_as_it_should_be_is_no_finding() {
        let owner = MachineId(Uuid::new_v4());
        let found = Survey {
            images: vec![FoundImage { image: ImageKey::new("image-1").unwrap(), snapshot: Health::Whole }],
            kept: vec![owner],
            ..survey()
        };
        let known = Records {
            versions: BTreeMap::from([("image-1".into(), VersionState::Successful), ("image-2".into(), VersionState::Failed)]),
            terminated: BTreeSet::from([owner]),
            ..records()
        };
        assert_eq!(examine(&known, &found), []);
    }

    #[test]
    fn damage_is_said_and_left_to_a_person() {
        let key = ImageKey::new("image-1").unwrap();
        let found = Survey {
            images: vec![FoundImage { image: key, snapshot: Health::Damaged("memory".into()) }],
            engine: EngineReport { choice: "none: no QEMU".into(), usable: false },
            ..survey()
        };
        let versions = BTreeMap::from([("image-1".into(), VersionState::Successful), ("image-2".into(), VersionState::Successful)]);
        let known = Records { versions, damage: vec!["page 3 is never used".into()], ..records() };
        let findings = examine(&known, &found);
        assert_eq!(findings.len(), 4, "{findings:?}");
        assert!(findings.iter().all(|finding| matches!(finding.repair, Repair::ByHand(_))));
        assert!(findings[0].what.contains("page 3"));
    }
}
