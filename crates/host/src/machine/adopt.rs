//! After a restart: which machines live, which can be resumed, which are lost.

use std::io;
use std::sync::Arc;

use super::record::MachineRecord;
use crate::layout::MachineFiles;
use crate::local::{LocalHost, Running};
use crate::{Machine, MachineId, MachineStatus};

/// Takes over every machine whose process lives.
pub(crate) async fn adopt_all(host: &Arc<LocalHost>) -> io::Result<()> {
    for (machine, files) in machines(host)? {
        let Ok(MachineRecord { image, process: Some(process) }) = MachineRecord::read(&files) else { continue };
        // A snapshot under its final name means that the machine was suspended and the daemon ended before it had ended the process.
        let suspended = files.snapshot().manifest().exists();
        let Ok(vm) = host.engine.adopt(process.identity, files.0.clone()).await else { continue };
        if suspended {
            vm.stop().await;
            continue;
        }
        match host.cells.adopt(process.identity.pid, process.cell) {
            Ok(cell) => {
                tracing::info!(%machine, pid = process.identity.pid, "adopted a running machine");
                host.insert(machine, Arc::new(Running { image, vm, cell }));
            }
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, %machine, "a running machine could not be adopted"),
        }
    }
    Ok(())
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
