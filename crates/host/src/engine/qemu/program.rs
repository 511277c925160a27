//! The QEMU that this host has: where it is and its version.

use std::io;
use std::process::Command;

use super::Accelerator;

const BINARY: &str = "qemu-system-x86_64";

pub(super) struct Program {
    pub binary: &'static str,
    pub version: String,
    pub accelerator: Accelerator,
}

impl Program {
    /// Finds QEMU.
    pub(super) fn find(accelerator: Accelerator) -> io::Result<Self> {
        let output = Command::new(BINARY)
            .arg("--version")
            .output()
            .map_err(|error| io::Error::new(error.kind(), format!("{BINARY}: {error} (install it: apt-get install qemu-system-x86)")))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().next().and_then(|line| line.strip_prefix("QEMU emulator version ")).map(str::trim);
        let version = version.ok_or_else(|| io::Error::other(format!("{BINARY} --version says: {text}")))?;
        Ok(Self { binary: BINARY, version: version.to_owned(), accelerator })
    }
}
