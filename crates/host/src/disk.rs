//! Disks of machines: raw root disks, qcow2 overlays over them, and read-only disks made from directories.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::HostError;
use crate::engine::{DiskFormat, DiskLayer};
use crate::pressure;

/// A sparse raw file of this size.
pub(crate) fn create_blank(path: &Path, bytes: u64) -> io::Result<()> {
    File::create_new(path)?.set_len(bytes)
}

/// An empty qcow2 overlay over `backing`, as large as `bytes`. The backing file's name is for people and tools: engines are given open descriptors.
pub(crate) async fn create_overlay(path: &Path, backing: &Path, format: DiskFormat, bytes: u64) -> Result<(), HostError> {
    let format = match format {
        DiskFormat::Raw => "raw",
        DiskFormat::Qcow2 => "qcow2",
    };
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(backing).arg(path).arg(bytes.to_string());
    run(command, "qemu-img", "qemu-utils").await
}

/// A raw ext4 file system holding a copy of `directory`.
pub(crate) async fn create_from_directory(path: &Path, directory: &Path, bytes: u64) -> Result<(), HostError> {
    create_blank(path, bytes).map_err(HostError::internal("make a disk"))?;
    let mut command = Command::new("mke2fs");
    command
        .args(["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0", "-m", "0", "-d"])
        .arg(directory)
        .arg(path);
    run(command, "mke2fs", "e2fsprogs").await
}

/// Space for a file system that holds `content` bytes in `entries` files.
pub(crate) fn size_for(content: u64, entries: u64) -> u64 {
    const SLACK: u64 = 16 * 1024 * 1024;
    const PER_ENTRY: u64 = 8 * 1024;
    (content + content / 8 + entries * PER_ENTRY + SLACK).next_multiple_of(1024 * 1024)
}

/// Opens the layers of a disk, the top one first; only that one may be written.
pub(crate) fn open_layers(layers: &[(&Path, DiskFormat)], read_only: bool) -> io::Result<Vec<DiskLayer>> {
    let open = |(depth, (path, format)): (usize, &(&Path, DiskFormat))| {
        let write = depth == 0 && !read_only;
        let file = OpenOptions::new()
            .read(true)
            .write(write)
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(DiskLayer { format: *format, file })
    };
    layers.iter().enumerate().map(open).collect()
}

async fn run(mut command: Command, tool: &'static str, package: &str) -> Result<(), HostError> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let failed = HostError::internal(format!("run {tool} (apt-get install {package})"));
    let output = output.map_err(|error| pressure::of_start(&error).unwrap_or_else(|| failed(error)))?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    match message.contains("No space left") {
        true => Err(HostError::DiskFull),
        false => Err(HostError::internal(format!("run {tool}"))(message)),
    }
}
