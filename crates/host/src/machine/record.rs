//! `machine.json`: what a restarted daemon needs to know about a machine.

use serde::{Deserialize, Serialize};

use crate::ImageKey;
use crate::layout::{MachineFiles, write_atomically};
use crate::sys::pidfd::ProcessIdentity;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    pub image: ImageKey,
    /// Its application has an identity of its own: false until the launch's last step.
    pub launched: bool,
    /// While it runs.
    pub process: Option<RunningProcess>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningProcess {
    pub identity: ProcessIdentity,
    /// The number of its cell's link.
    pub cell: u32,
}

impl MachineRecord {
    pub(crate) fn read(files: &MachineFiles) -> std::io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(files.record())?)?)
    }

    pub(crate) fn mark_launched(files: &MachineFiles) -> std::io::Result<()> {
        Self { launched: true, ..Self::read(files)? }.write(files)
    }

    pub(crate) fn write(&self, files: &MachineFiles) -> std::io::Result<()> {
        write_atomically(&files.record(), &serde_json::to_vec(self)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_round_trips() {
        let directory = tempfile::tempdir().unwrap();
        let files = MachineFiles(directory.path().to_path_buf());
        let process = RunningProcess { identity: ProcessIdentity { pid: 7, start_ticks: 9 }, cell: 3 };
        let record = MachineRecord { image: ImageKey::new("image-1").unwrap(), launched: true, process: Some(process) };
        record.write(&files).unwrap();
        assert_eq!(MachineRecord::read(&files).unwrap(), record);
        std::fs::write(files.record(), r#"{"image":"image-1","launched":true,"process":null}"#).unwrap();
        assert_eq!(MachineRecord::read(&files).unwrap().process, None);
    }
}
