//! What the state file holds.

use serde::{Deserialize, Serialize};

use crate::arch::vcpu_state::VcpuState;
use crate::arch::vm_state::VmState;
use crate::devices::SerialRecord;
use crate::devices::virtio::TransportRecord;

#[derive(Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    /// Name of the CPU profile that the guest has seen.
    pub profile: String,
    pub memory_mib: u32,
    pub vcpus: Vec<VcpuState>,
    pub vm: VmState,
    pub serial: SerialRecord,
    /// In the order of their slots.
    pub devices: Vec<TransportRecord>,
}
