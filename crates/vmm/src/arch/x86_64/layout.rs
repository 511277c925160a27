//! Where everything lies in the guest's physical address space and on its interrupt controller. Part of every snapshot: changing a number here means
//! raising the snapshot's format.

/// RAM ends here or below; what exceeds it goes on at [`HIGH_RAM`].
pub(crate) const LOW_RAM_END: u64 = 3 << 30;
pub(crate) const HIGH_RAM: u64 = 4 << 30;

/// Boot structures, in memory that the kernel takes over once it has read them.
pub(crate) const GDT: u64 = 0x500;
pub(crate) const ZERO_PAGE: u64 = 0x7000;
pub(crate) const BOOT_STACK: u64 = 0x8ff0;
pub(crate) const PAGE_TABLES: u64 = 0x9000;
pub(crate) const COMMAND_LINE: u64 = 0x2_0000;
pub(crate) const COMMAND_LINE_MAX: usize = 2048;
/// End of conventional memory.
pub(crate) const LOW_MEMORY_END: u64 = 0x9_fc00;

/// ACPI tables and the generation identifier: reserved from the kernel's point of view.
pub(crate) const ACPI: u64 = 0xe_0000;
pub(crate) const ACPI_END: u64 = 0x10_0000;
/// 16 bytes, alone on their page.
pub(crate) const GENERATION_ID: u64 = 0xf_f000;

/// Devices: one page of registers each.
pub(crate) const DEVICES: u64 = 0xd000_0000;
pub(crate) const DEVICE_SIZE: u64 = 0x1000;
/// As many as there are interrupt lines for.
pub(crate) const MAX_DEVICES: usize = 12;

pub(crate) const IO_APIC: u32 = 0xfec0_0000;
pub(crate) const LOCAL_APIC: u32 = 0xfee0_0000;
/// Needed by Intel CPUs without unrestricted guests: three pages that the guest never sees.
pub(crate) const TSS: usize = 0xfffb_d000;

/// Interrupt lines of the I/O APIC.
pub(crate) const SERIAL_LINE: u32 = 4;
pub(crate) const FIRST_DEVICE_LINE: u32 = 8;
pub(crate) const GENERATION_LINE: u32 = 23;

/// The first serial port and the keyboard controller's command port, which can reset the machine.
pub(crate) const SERIAL_PORTS: std::ops::Range<u16> = 0x3f8..0x400;
pub(crate) const RESET_PORT: u16 = 0x64;
pub(crate) const RESET_COMMAND: u8 = 0xfe;

/// The line of the device in a slot.
pub(crate) fn device_line(slot: usize) -> u32 {
    FIRST_DEVICE_LINE + slot as u32
}

/// The registers of the device in a slot.
pub(crate) fn device_address(slot: usize) -> u64 {
    DEVICES + slot as u64 * DEVICE_SIZE
}

/// Which device's register an address is.
pub(crate) fn device_at(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(DEVICES)?;
    let slot = usize::try_from(offset / DEVICE_SIZE).ok()?;
    (slot < MAX_DEVICES).then_some((slot, offset % DEVICE_SIZE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_and_addresses_are_each_others_inverse() {
        for slot in 0..MAX_DEVICES {
            assert_eq!(device_at(device_address(slot) + 0x50), Some((slot, 0x50)));
            assert!(device_line(slot) < GENERATION_LINE);
        }
        for outside in [0, DEVICES - 1, device_address(MAX_DEVICES), u64::MAX] {
            assert_eq!(device_at(outside), None);
        }
    }
}
