//! One machine that runs MicroVMs: their virtual machine processes, cells, disks and the link to the agent in the guest.
//!
//! [`Host`] is everything that `control` may ask; nothing else crosses. Its arguments and answers are plain data, so that one control can later
//! drive many hosts over a wire. A host knows nothing of ARNs, accounts, quotas or states of the API: `control` decides, `host` does.
//!
//! A *machine* is one virtual machine of this host with its files; a *snapshot* is the frozen image of one (see `docs/architecture.md`).
#![deny(unsafe_code)]

mod agent;
mod api;
mod base;
mod cgroup;
mod disk;
mod engine;
pub mod failpoints;
mod layout;
mod local;
mod machine;
mod memory;
mod network;
mod pressure;
pub mod salvage;
mod snapshot;
mod steps;
pub mod survey;
mod sys;
mod usage;
mod words;
mod working_set;

pub use api::{
    BUILDER_MEMORY_MIB, BuildRootDisk, CaptureImage, CapturedImage, ConnectError, Container, ContainerConfig, EndCause, GuestStream,
    HookCall, Host, HostError, HostMemory, HostRecovery, ImageKey, LaunchMachine, Machine, MachineExit, MachineId, MachineShape,
    MachineStatus, Output, OutputSink, ProcessEnd, Registry, ResumeMachine, RootDisk, StepTimings, StopMachine, SuspendMachine, Suspended,
    Usage,
};
pub use emberbox_agent_protocol::HookOutcome;
pub use emberbox_vmm::with_causes;
pub use local::{EngineChoice, HostHandle, LocalHost, LocalHostConfig, MonitorOptions, StartError};
pub use network::{NetworkConfig, NetworkError};
pub use snapshot::packed::Compression;
pub use words::{last_bytes, printable};
