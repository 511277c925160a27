//! After a restart: which machines live, which can be resumed, which are lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};

use super::record::{MachineRecord, RunningProcess};
use super::restore;
use super::resume::put_back;
use crate::engine::Vm;
use crate::layout::{Layout, MachineFiles};
use crate::local::{LocalHost, Running, remove_directory};
use crate::network::Cell;
use crate::snapshot::Manifest;
use crate::snapshot::document::DocumentError;
use crate::steps::Steps;
use crate::sys::pidfd::{ProcessHandle, ProcessIdentity};
use crate::{HostError, HostRecovery, ImageKey, Machine, MachineId, MachineShape, MachineStatus, NetworkError, failpoints};

/// The agent answers within milliseconds; one machine that does not must not hold up the daemon's start.
const AWAKE_WITHIN: Duration = Duration::from_secs(10);
/// Machines looked at together: most of the time is waiting for guests.
const AT_ONCE: usize = 32;

/// Takes over every machine whose process lives, puts right what a killed daemon left half done, and ends processes that belong to nothing.
pub(crate) async fn adopt_all(host: &Arc<LocalHost>) -> io::Result<HostRecovery> {
    let settling = futures::stream::iter(machines(&host.layout)?).map(|(machine, files)| settle(host, machine, files));
    let found =
        settling.buffer_unordered(AT_ONCE).try_fold(HostRecovery::default(), |sum, one| std::future::ready(Ok(sum.and(one)))).await?;
    let processes_ended = end_strays(host)?;
    host.cells.sweep().await;
    Ok(found.and(HostRecovery { processes_ended, ..HostRecovery::default() }))
}

/// One machine; what was found and done about it.
async fn settle(host: &Arc<LocalHost>, machine: MachineId, files: MachineFiles) -> io::Result<HostRecovery> {
    let mut found = HostRecovery::default();
    let record = match MachineRecord::read(&files) {
        Ok(record) => record,
        // Not even a record: its launch had hardly begun.
        Err(DocumentError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => {
            found.directories_removed = 1;
            return remove_directory(&files.0).map(|()| found);
        }
        Err(error) => {
            tracing::error!(%machine, error = &error as &dyn std::error::Error, "a machine's record (machine.json) tells nothing: the machine is lost");
            return Ok(found);
        }
    };
    failpoints::ADOPT_RECORD.pass().await?;
    // A snapshot under its final name: suspended, and the daemon ended before it had ended the process. `resuming`: the application has not run.
    if files.snapshot().0.exists() || files.resuming().0.exists() {
        let (ended, resuming) = (u32::from(end_process(host, &record).await), files.resuming().0.exists());
        found = HostRecovery { processes_ended: ended, resumes_undone: u32::from(resuming), ..found };
        found.suspensions_finished = if resuming { 0 } else { ended };
        put_back(&files);
        // Of the life before the snapshot, whose process has ended.
        if files.snapshot().0.exists()
            && let Err(error) = remove_directory(&files.resumed().0)
        {
            tracing::warn!(%error, %machine, "a suspension that a crash had cut off was not tidied up after");
        }
        return restore::note_running(&files).map(|()| found);
    }
    if !record.launched {
        // The launch was cut off: its application has no identity of its own, and its caller was never told RUNNING. Its files go at once, for they say that its
        // image is in use: that of a build that was cut off while it was validated is about to be deleted.
        found.processes_ended = u32::from(end_process(host, &record).await);
        found.launches_undone = 1;
        return remove_directory(&files.0).map(|()| found);
    }
    let Some(process) = record.process.as_ref() else { return Ok(found) };
    if let Ok(vm) = host.engine.adopt(process.identity, files.0.clone()).await {
        match adopt(host, machine, &files, &record, process, vm).await {
            Adopted::Awake => found.machines_adopted = 1,
            Adopted::Silent => found.machines_silent = 1,
            Adopted::Ended => found.processes_ended = 1,
        }
        failpoints::ADOPT_PROCESS.reach().await;
    }
    Ok(found)
}

/// What became of a machine whose process lives.
enum Adopted {
    Awake,
    /// It runs and its agent does not answer.
    Silent,
    /// It could not be adopted.
    Ended,
}

async fn adopt(
    host: &Arc<LocalHost>,
    machine: MachineId,
    files: &MachineFiles,
    record: &MachineRecord,
    process: &RunningProcess,
    vm: Arc<dyn Vm>,
) -> Adopted {
    let taken = match shape_of(host, record) {
        Ok(shape) => cell_of(host, vm.as_ref(), process.cell).map(|cell| (shape, cell)).map_err(HostError::from),
        Err(error) => Err(error),
    };
    match taken {
        Ok((shape, cell)) => {
            let running = Arc::new(Running::new(record.image.clone(), shape, vm, cell));
            let adopted = match awake(host, &running, files, record).await {
                Ok(()) => Adopted::Awake,
                Err(error) => {
                    tracing::warn!(%machine, error = &error as &dyn std::error::Error, "an adopted machine does not answer");
                    Adopted::Silent
                }
            };
            tracing::info!(%machine, pid = process.identity.pid, "adopted a running machine");
            host.insert(machine, running);
            adopted
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, %machine, "a running machine could not be adopted and is ended");
            vm.stop().await;
            Adopted::Ended
        }
    }
}

/// Records of format 1 leave it to the image.
fn shape_of(host: &LocalHost, record: &MachineRecord) -> Result<MachineShape, HostError> {
    let of_image = || Manifest::load(&host.layout.image(&record.image).snapshot(), host.engine.identity()).map(|manifest| manifest.shape);
    record.shape.map_or_else(of_image, Ok)
}

/// Whether there was one.
async fn end_process(host: &LocalHost, record: &MachineRecord) -> bool {
    if let Some(process) = &record.process
        && let Ok(vm) = host.engine.adopt(process.identity, host.layout.work()).await
    {
        vm.stop().await;
        return true;
    }
    false
}

/// Processes that run as one of this daemon's users and were not adopted: builders, captures, and starts that were never recorded.
fn end_strays(host: &LocalHost) -> io::Result<u32> {
    let mut ended = 0;
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        // Monitors that stand ready for this daemon's launches are its own children.
        let ours = host.runs_as(pid) || status_number(pid, "PPid:") == Some(std::process::id());
        let stray = !ours && host.cells.is_user(status_number(pid, "Uid:").unwrap_or_default());
        if stray && let Ok(process) = ProcessIdentity::of(pid).and_then(ProcessHandle::open) {
            tracing::info!(pid, "ending a virtual machine process that belongs to no machine");
            process.kill();
            ended += 1;
        }
    }
    Ok(ended)
}

/// The cell of a living machine.
fn cell_of(host: &LocalHost, vm: &dyn Vm, number: u32) -> Result<Cell, NetworkError> {
    let opened = vm.namespace();
    let namespace = opened.map_err(|source| NetworkError::Io { attempted: "open a machine's network namespace", source })?;
    host.cells.adopt(namespace, number)
}

/// The first number of a line of `/proc/<pid>/status`: the directory's own owner is root for processes that may not be dumped. None of a process that has ended
/// and waits for its parent: nobody can do anything about it.
pub(crate) fn status_number(pid: i32, name: &str) -> Option<u32> {
    const ENDED: &str = "State:\tZ";
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    if status.lines().any(|line| line.starts_with(ENDED)) {
        return None;
    }
    status.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// The daemon may have been killed while the machine was paused or frozen, at the start or the end of its run: then it goes on. One that ran all the while is
/// left alone.
async fn awake(host: &LocalHost, running: &Running, files: &MachineFiles, record: &MachineRecord) -> Result<(), HostError> {
    let noted_by_us = record.shape.is_some();
    if noted_by_us && !files.still().exists() {
        return Ok(());
    }
    running.vm.resume().await?;
    let mut steps = Steps::start();
    let thawed = restore::thaw(host, running, None, None, &mut steps);
    tokio::time::timeout(AWAKE_WITHIN, thawed).await.map_err(HostError::internal("reach the agent"))??;
    restore::note_running(files).map_err(HostError::internal("note that the machine runs"))
}

/// Every machine with files here.
pub(crate) fn inventory(host: &Arc<LocalHost>) -> io::Result<Vec<Machine>> {
    let mut found = Vec::new();
    for (machine, files) in machines(&host.layout)? {
        let image = match MachineRecord::read(&files) {
            Ok(record) => Some(record.image),
            // A launch that has just begun has no record yet.
            Err(DocumentError::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => None,
        };
        let status = match host.running(machine) {
            Some(_) => MachineStatus::Running,
            None if image.is_some() && files.snapshot().0.exists() => MachineStatus::Suspended,
            None => MachineStatus::Lost,
        };
        found.push(Machine { machine, image, status });
    }
    Ok(found)
}

/// A machine that needs an image's files, if there is one. A machine whose record is damaged cannot be brought back, so it needs nothing.
pub(crate) fn user_of(layout: &Layout, image: &ImageKey) -> io::Result<Option<MachineId>> {
    let uses = |files: &MachineFiles| MachineRecord::read(files).is_ok_and(|record| record.image == *image);
    Ok(machines(layout)?.into_iter().find(|(_, files)| uses(files)).map(|(machine, _)| machine))
}

fn machines(layout: &Layout) -> io::Result<Vec<(MachineId, MachineFiles)>> {
    let mut machines = Vec::new();
    for entry in std::fs::read_dir(layout.machines())? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(MachineId);
        match id {
            Some(id) => machines.push((id, MachineFiles(entry.path()))),
            None => tracing::warn!(path = %entry.path().display(), "not a machine: left alone"),
        }
    }
    Ok(machines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_process_that_has_ended_is_nobodys() {
        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let uid = status_number(i32::try_from(std::process::id()).unwrap(), "Uid:");
        assert!(uid.is_some());
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while status_number(pid, "Uid:").is_some() && std::time::Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "it waits for its parent");
        assert_eq!(status_number(pid, "Uid:"), None);
        child.wait().unwrap();
    }

    #[test]
    fn an_image_is_in_use_while_any_machines_record_names_it() {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(directory.path()).unwrap();
        let key = |name| ImageKey::new(name).unwrap();
        assert_eq!(user_of(&layout, &key("used")).unwrap(), None);
        let process = RunningProcess { identity: ProcessIdentity { pid: 1, start_ticks: 1 }, cell: 1 };
        // Being launched, running, suspended: each keeps its image, before and after a crash, for nothing but the record counts.
        for (launched, process) in [(false, None), (true, Some(process)), (true, None)] {
            let machine = MachineId(Uuid::new_v4());
            let files = layout.machine(machine);
            std::fs::create_dir(&files.0).unwrap();
            MachineRecord { image: key("used"), shape: None, launched, process }.write(&files).unwrap();
            assert_eq!(user_of(&layout, &key("used")).unwrap(), Some(machine));
            assert_eq!(user_of(&layout, &key("other")).unwrap(), None);
            std::fs::remove_dir_all(&files.0).unwrap();
            assert_eq!(user_of(&layout, &key("used")).unwrap(), None);
        }
    }
}
