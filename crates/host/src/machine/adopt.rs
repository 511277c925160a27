//! After a restart: which machines live, which can be resumed, which are lost.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::record::MachineRecord;
use super::restore;
use super::resume::put_back;
use crate::layout::MachineFiles;
use crate::local::{LocalHost, Running};
use crate::steps::Steps;
use crate::{HostError, Machine, MachineId, MachineStatus};

/// The agent answers within milliseconds; one machine that does not must not hold up the daemon's start.
const AWAKE_WITHIN: Duration = Duration::from_secs(10);

/// Takes over every machine whose process lives, and puts right what a killed daemon left half done.
pub(crate) async fn adopt_all(host: &Arc<LocalHost>) -> io::Result<()> {
    for (machine, files) in machines(host)? {
        let process = match MachineRecord::read(&files) {
            Ok(MachineRecord { image, process: Some(process) }) => {
                host.engine.adopt(process.identity, files.0.clone()).await.ok().map(|vm| (image, process, vm))
            }
            _ => None,
        };
        // A snapshot under its final name: suspended, and the daemon ended before it had ended the process. `resuming`: the application has not run.
        if files.snapshot().manifest().exists() || files.resuming().0.exists() {
            if let Some((_, _, vm)) = process {
                vm.stop().await;
            }
            put_back(&files);
            continue;
        }
        let Some((image, process, vm)) = process else { continue };
        match host.cells.adopt(process.identity.pid, process.cell) {
            Ok(cell) => {
                let running = Arc::new(Running { image, vm, cell });
                match awake(host, &running).await {
                    Ok(()) => tracing::info!(%machine, pid = process.identity.pid, "adopted a running machine"),
                    Err(error) => tracing::warn!(%machine, error = &error as &dyn std::error::Error, "an adopted machine does not answer"),
                }
                host.insert(machine, running);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, %machine, "a running machine could not be adopted and is ended");
                vm.stop().await;
            }
        }
    }
    Ok(())
}

/// The daemon may have been killed while the machine was paused or frozen, at the start or the end of its run. For one that ran all the while this sets the
/// clock once more.
async fn awake(host: &LocalHost, running: &Running) -> Result<(), HostError> {
    running.vm.resume().await?;
    let mut steps = Steps::start();
    let thawed = restore::thaw(host, running, None, None, &mut steps);
    tokio::time::timeout(AWAKE_WITHIN, thawed).await.map_err(HostError::internal("reach the agent"))?.map(|_| ())
}

/// Every machine with files here.
pub(crate) fn inventory(host: &Arc<LocalHost>) -> io::Result<Vec<Machine>> {
    let mut found = Vec::new();
    for (machine, files) in machines(host)? {
        let Ok(record) = MachineRecord::read(&files) else {
            // Not even a record: its launch had hardly begun.
            crate::local::remove_directory(&files.0)?;
            continue;
        };
        let status = match host.running(machine) {
            Some(_) => MachineStatus::Running,
            None if files.snapshot().manifest().exists() => MachineStatus::Suspended,
            None => MachineStatus::Lost,
        };
        found.push(Machine { machine, image: record.image, status });
    }
    Ok(found)
}

fn machines(host: &LocalHost) -> io::Result<Vec<(MachineId, MachineFiles)>> {
    let mut machines = Vec::new();
    for entry in std::fs::read_dir(host.layout.machines())? {
        let entry = entry?;
        let id = entry.file_name().to_str().and_then(|name| name.parse().ok()).map(MachineId);
        match id {
            Some(id) => machines.push((id, MachineFiles(entry.path()))),
            None => tracing::warn!(path = %entry.path().display(), "not a machine: left alone"),
        }
    }
    Ok(machines)
}
