//! What lies in a host's data directory and what runs of it, looked at from outside: for `emberbox doctor`, with a daemon or without one.
//!
//! Changes nothing but by [`remove`], which takes away what the survey found and nobody owns.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use emberbox_vmm::with_causes;
use serde::Serialize;

use crate::engine::{self, Chosen};
use crate::layout::{Layout, MachineFiles, SnapshotFiles};
use crate::machine::adopt::status_number;
use crate::machine::record::MachineRecord;
use crate::network::SurveyedNetwork;
use crate::snapshot::{EngineIdentity, Manifest};
use crate::sys::pidfd::{ProcessHandle, ProcessIdentity};
use crate::{EngineChoice, ImageKey, MachineId, MonitorOptions};

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names, sizes and descriptions.
    Quick,
    /// Every byte of every snapshot, against its checksums.
    Thorough,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    pub machines: Vec<FoundMachine>,
    pub images: Vec<FoundImage>,
    /// Machines of which files are kept.
    pub kept: Vec<MachineId>,
    /// Files that an operation was making.
    pub half_made: Vec<PathBuf>,
    /// Virtual machine processes that are no known machine's.
    pub strays: Vec<i32>,
    /// Interfaces of this host's cells.
    pub interfaces: Vec<String>,
    pub engine: EngineReport,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundMachine {
    pub machine: MachineId,
    /// `None`: its record cannot be read.
    pub image: Option<ImageKey>,
    /// The process that runs it.
    pub process: Option<i32>,
    pub snapshot: Health,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FoundImage {
    pub image: ImageKey,
    pub snapshot: Health,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Health {
    Absent,
    Whole,
    Damaged(String),
}

/// Which engine this host would use, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineReport {
    /// For people.
    pub choice: String,
    /// Whether it can be used.
    pub usable: bool,
}

/// Looks. Machines whose launch or suspension is under way look half-made: with a daemon that serves, look twice.
pub fn survey(data: &Path, engine: EngineChoice, monitor: &MonitorOptions, depth: Depth) -> io::Result<Survey> {
    let layout = Layout::at(data);
    let chosen = engine::choose(engine, monitor).map_err(|error| with_causes(error.as_ref()));
    let known = chosen.as_ref().ok().map(|chosen| chosen.engine.identity());
    let mut machines = Vec::new();
    let mut half_made = entries(&layout.work())?;
    for path in entries(&layout.machines())? {
        let Some(machine) = path.file_name().and_then(|name| name.to_str()?.parse().ok()).map(MachineId) else {
            half_made.push(path);
            continue;
        };
        let files = MachineFiles(path);
        half_made.extend(Some(files.snapshot_in_progress().0).filter(|path| path.exists()));
        machines.push(machine_at(machine, &files, known, depth));
    }
    let mut images = Vec::new();
    for path in entries(&layout.images())? {
        let Some(image) = path.file_name().and_then(|name| ImageKey::new(name.to_str()?)) else {
            half_made.push(path);
            continue;
        };
        let files = layout.image(&image);
        images.push(FoundImage { snapshot: health(&files.snapshot(), known, depth, Whose::Image), image });
    }
    let network = SurveyedNetwork::of(&layout.network());
    let owned: BTreeSet<i32> = machines.iter().filter_map(|found| found.process).collect();
    Ok(Survey {
        machines,
        images,
        kept: layout.kept_machines()?,
        half_made,
        strays: strays(&network, &owned)?,
        interfaces: network.interfaces(),
        engine: report(&chosen),
    })
}

fn report(chosen: &Result<Chosen, String>) -> EngineReport {
    match chosen {
        Ok(Chosen { engine, why }) => {
            let EngineIdentity { engine, version, cpu_profile, .. } = engine.identity();
            EngineReport { choice: format!("{engine} {version}, CPU profile {cpu_profile}: {why}"), usable: true }
        }
        Err(reason) => EngineReport { choice: format!("none: {reason}"), usable: false },
    }
}

fn machine_at(machine: MachineId, files: &MachineFiles, engine: Option<&EngineIdentity>, depth: Depth) -> FoundMachine {
    let record = MachineRecord::read(files).ok();
    let process = record.as_ref().and_then(|record| record.process.as_ref()).map(|process| process.identity);
    FoundMachine {
        machine,
        image: record.map(|record| record.image),
        process: process.filter(|identity| ProcessHandle::open(*identity).is_ok()).map(|identity| identity.pid),
        snapshot: health(&files.snapshot(), engine, depth, Whose::Machine),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Image,
    Machine,
}

fn health(snapshot: &SnapshotFiles, engine: Option<&EngineIdentity>, depth: Depth, whose: Whose) -> Health {
    if !snapshot.0.exists() {
        return Health::Absent;
    }
    // Without an engine nothing can be said of what would fit it.
    let Some(engine) = engine else { return Health::Whole };
    let checked = Manifest::load(snapshot, engine).and_then(|manifest| match (depth, whose) {
        (Depth::Quick, _) => Ok(()),
        (Depth::Thorough, Whose::Machine) => manifest.check_own(snapshot),
        (Depth::Thorough, Whose::Image) => manifest.check(snapshot, |_, _| true),
    });
    match checked {
        Ok(()) => Health::Whole,
        Err(error) => Health::Damaged(with_causes(&error)),
    }
}

/// Processes that run as one of this host's users.
fn strays(network: &SurveyedNetwork, owned: &BTreeSet<i32>) -> io::Result<Vec<i32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if !owned.contains(&pid) && network.is_user(status_number(pid, "Uid:").unwrap_or_default()) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    paths.sort();
    Ok(paths)
}

/// Something that a survey found and nobody owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leftover {
    Machine(MachineId),
    Image(ImageKey),
    Kept(MachineId),
    HalfMade(PathBuf),
    Process(i32),
    Interface(String),
}

/// Takes it away. Only with no daemon at work on the same data.
pub fn remove(data: &Path, leftover: &Leftover) -> io::Result<()> {
    let layout = Layout::at(data);
    match leftover {
        Leftover::Machine(machine) => {
            let files = layout.machine(*machine);
            let process = MachineRecord::read(&files).ok().and_then(|record| record.process);
            if let Some(process) = process.and_then(|process| ProcessHandle::open(process.identity).ok()) {
                process.kill();
            }
            std::fs::remove_dir_all(files.0)
        }
        Leftover::Image(image) => std::fs::remove_dir_all(layout.image(image).0),
        Leftover::Kept(machine) => std::fs::remove_dir_all(layout.kept(*machine).0),
        Leftover::HalfMade(path) if path.is_dir() => std::fs::remove_dir_all(path),
        Leftover::HalfMade(path) => std::fs::remove_file(path),
        Leftover::Process(pid) => {
            ProcessIdentity::of(*pid).and_then(ProcessHandle::open)?.kill();
            Ok(())
        }
        Leftover::Interface(name) => SurveyedNetwork::remove(name).map_err(|error| io::Error::other(with_causes(&error))),
    }
}
