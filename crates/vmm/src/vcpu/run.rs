//! One exit of a vCPU from KVM, and what it asks for.

use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::devices::{Bus, PortWrite};
use crate::end;

/// Runs the guest until it needs something of the machine, and gives it that.
pub(super) fn step(fd: &mut VcpuFd, bus: &Bus) {
    match fd.run() {
        Ok(VcpuExit::MmioRead(address, data)) => bus.read(address, data),
        Ok(VcpuExit::MmioWrite(address, data)) => bus.write(address, data),
        Ok(VcpuExit::IoIn(port, data)) => bus.read_port(port, data),
        Ok(VcpuExit::IoOut(port, data)) => {
            if bus.write_port(port, data) == PortWrite::Reset {
                end::by_guest("reset the machine");
            }
        }
        Ok(VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen) => {}
        // How a kernel with reboot=t resets.
        Ok(VcpuExit::Shutdown) => end::by_guest("ended in a triple fault"),
        Ok(VcpuExit::SystemEvent(kind, _)) => end::by_guest(&format!("stopped (system event {kind})")),
        Ok(VcpuExit::FailEntry(reason, _)) => end::now(&format!("the CPU refused to enter the guest (reason {reason:#x})")),
        Ok(VcpuExit::InternalError) => end::now("KVM could not execute an instruction of the guest"),
        Ok(other) => end::now(&format!("KVM left the guest for {}, which this machine has no use for", name(&other))),
        Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => {}
        Err(error) => end::now(&format!("KVM could not run the guest: {error}")),
    }
}

/// The first word of its description: the rest may hold bytes of the guest.
fn name(exit: &VcpuExit<'_>) -> String {
    format!("{exit:?}").chars().take_while(|letter| letter.is_alphanumeric()).collect()
}

/// Executes no instruction of the guest.
pub(super) fn enter_and_leave(fd: &mut VcpuFd) {
    fd.set_kvm_immediate_exit(1);
    // It leaves with EINTR, or with another part of the access that it was left for, whose answer is then given at the next entry.
    let _ = fd.run();
    fd.set_kvm_immediate_exit(0);
}
