//! x86_64: local APICs and an I/O APIC in the kernel, ACPI (hardware-reduced) for everything else, no PIC, PIT, CMOS or keyboard controller but for its
//! reset line.

pub(crate) mod acpi;
pub(crate) mod boot;
pub(crate) mod cpuid;
pub(crate) mod layout;
mod msrs;
pub(crate) mod registers;
pub(crate) mod vcpu_state;
pub(crate) mod vm_state;
