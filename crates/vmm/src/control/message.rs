//! The messages. Both sides are of one build: a monitor of another generation answers with an error, and the daemon treats it as it does any that cannot be
//! adopted.

use serde::{Deserialize, Serialize};

use crate::devices::DiskFormat;

/// Raised whenever a message changes its meaning or its shape.
pub const GENERATION: u32 = 1;
/// No line is longer.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    pub generation: u32,
    pub request: Request,
}

/// What the daemon asks. Descriptors come with the line, in the order given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Make whatever can be made before the machine is known.
    Prepare {
        vcpus: u8,
    },
    /// A fresh machine, running. Descriptors: listening socket, tap, disks' layers, kernel, initramfs, memory.
    Boot {
        machine: MachineSpec,
        command_line: String,
    },
    /// A machine from its snapshot, running. Descriptors: listening socket, tap, disks' layers, memory (of the image), state, for a `layered` one the
    /// memory of its own and the list of its runs, and the working set where it is known.
    Restore {
        machine: MachineSpec,
        layered: bool,
        #[serde(default)]
        working_set: WorkingSet,
    },
    Pause,
    Resume,
    /// Write the state of the paused machine. Descriptor: an empty file.
    SaveState,
    /// Ask the guest to give back so many pages of 4 KiB in all.
    Balloon {
        pages: u32,
    },
    Stats,
}

/// Which pages copies of the image touch when they come up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkingSet {
    #[default]
    Unknown,
    /// To be found out from this machine, by what the host's page cache holds afterwards.
    Recorded,
    /// Put in place before it runs; what it touches later, when there is time.
    Known,
}

/// The machine's shape. What its descriptors hold must fit it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    pub vcpus: u8,
    pub memory_mib: u32,
    pub mac: [u8; 6],
    pub disks: Vec<DiskSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// How the guest finds it: at most 20 bytes.
    pub serial: String,
    pub read_only: bool,
    /// The one that is written first.
    pub layers: Vec<DiskFormat>,
}

/// The answer to one call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// With the names of its steps and the microseconds they took.
    Done {
        steps: Vec<(String, u64)>,
    },
    Stats(Stats),
    Failed {
        reason: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub paused: bool,
    pub vcpus: u8,
    pub memory_mib: u32,
}
