//! `machine.json`: what a restarted daemon needs to know about a machine, and what says that an image is in use. Written before anything of the image is
//! opened, and gone with the machine's directory: there is no counter that a crash could leave wrong.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::layout::MachineFiles;
use crate::snapshot::document::{self, DocumentError};
use crate::sys::pidfd::ProcessIdentity;
use crate::{ImageKey, MachineShape};

/// Format 1 had no checksum and no shape.
const FORMAT: u32 = 2;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    pub image: ImageKey,
    /// Of the image; absent in records of format 1.
    pub shape: Option<MachineShape>,
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
    pub(crate) fn read(files: &MachineFiles) -> Result<Self, DocumentError> {
        let earlier = |_, mut value: Value| {
            value.as_object_mut()?.insert("shape".into(), Value::Null);
            serde_json::from_value(value).ok()
        };
        document::read(&files.record(), FORMAT, earlier)
    }

    pub(crate) fn write(&self, files: &MachineFiles) -> std::io::Result<()> {
        document::write(&files.record(), FORMAT, self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_round_trips_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let files = MachineFiles(directory.path().to_path_buf());
        let process = RunningProcess { identity: ProcessIdentity { pid: 7, start_ticks: 9 }, cell: 3 };
        let shape = Some(MachineShape { vcpus: 1, memory_mib: 512, disk_gib: 8 });
        let record = MachineRecord { image: ImageKey::new("image-1").unwrap(), shape, launched: true, process: Some(process) };
        record.write(&files).unwrap();
        assert_eq!(MachineRecord::read(&files).unwrap(), record);
        let other = std::fs::read_to_string(files.record()).unwrap().replace("image-1", "image-3");
        std::fs::write(files.record(), other).unwrap();
        assert!(matches!(MachineRecord::read(&files), Err(DocumentError::Damaged)));
    }

    #[test]
    fn a_record_of_format_1_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let files = MachineFiles(directory.path().to_path_buf());
        std::fs::write(files.record(), r#"{"image":"image-1","launched":true,"process":null}"#).unwrap();
        let record = MachineRecord::read(&files).unwrap();
        assert_eq!((record.image.as_str(), record.shape, record.launched, record.process), ("image-1", None, true, None));
        std::fs::write(files.record(), r#"{"image":"image-1","launched":tru"#).unwrap();
        assert!(matches!(MachineRecord::read(&files), Err(DocumentError::Damaged)));
    }
}
