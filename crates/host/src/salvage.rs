//! The disk of a machine that died, out of what is kept of it: for `emberbox salvage`, with a daemon or without one. Changes nothing of it.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::MachineId;
use crate::layout::{Layout, MachineFiles};

#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    #[error("nothing is kept of it: it has not died, or retention.lost_disk_seconds have passed since")]
    NothingKept,
    #[error("could not run qemu-img: is it installed? (apt-get install qemu-utils)")]
    Tool(#[source] io::Error),
    #[error("qemu-img refused: {0}")]
    Refused(String),
}

/// Writes the whole disk to the new file `to`, an ext4 file system.
pub fn copy_disk(data: &Path, machine: MachineId, to: &Path) -> Result<(), SalvageError> {
    let kept = Layout::at(data).kept(machine);
    if !kept.disk().exists() {
        return Err(SalvageError::NothingKept);
    }
    let mut command = Command::new("qemu-img");
    command.args(["convert", "-O", "raw"]).arg(format!("json:{}", chain(&kept))).arg(to);
    let output = command.stdin(Stdio::null()).output().map_err(SalvageError::Tool)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(SalvageError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

/// The layers by where they are now: the names they hold of each other are of the image, which may have been deleted.
fn chain(kept: &MachineFiles) -> Value {
    let file = |path: &Path| json!({"driver": "file", "filename": path});
    let root = json!({"driver": "raw", "file": file(&kept.image_root_disk())});
    let image = json!({"driver": "qcow2", "file": file(&kept.image_disk()), "backing": root});
    json!({"driver": "qcow2", "file": file(&kept.disk()), "backing": image})
}
