//! Entering a Linux kernel by its 64-bit boot protocol (kernel: Documentation/arch/x86/boot.rst): the bzImage as distributions ship it, no firmware.

use std::fs::File;
use std::io::{self, Read};

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{BzImage, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

use super::{acpi, layout};
use crate::memory::GuestMemory;

/// The 64-bit entry lies so far into the loaded kernel.
const ENTRY_64: u64 = 0x200;
/// `xloadflags`: the kernel has a 64-bit entry; the initramfs may lie above 4 GiB is not asked for.
const HAS_ENTRY_64: u16 = 1;
const LOADER_UNDEFINED: u8 = 0xff;
const RAM: u32 = 1;
const RESERVED: u32 = 2;
const PAGE: u64 = 4096;
/// A kernel and an initramfs are tens of megabytes: a file this large is neither.
const MAX_INITRAMFS: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    #[error("could not load the kernel")]
    Kernel(#[source] linux_loader::loader::Error),
    #[error("the kernel has no 64-bit entry")]
    NoEntry,
    #[error("could not read the initramfs")]
    Initramfs(#[source] io::Error),
    #[error("the kernel's initramfs of {bytes} bytes does not fit into the machine's memory")]
    TooLarge { bytes: u64 },
    #[error("the kernel's command line is longer than {} bytes", layout::COMMAND_LINE_MAX)]
    CommandLine,
    #[error("could not write the kernel's parameters into guest memory")]
    Memory(#[source] vm_memory::GuestMemoryError),
}

/// What a machine starts with.
pub(crate) struct Kernel<'a> {
    pub image: &'a mut File,
    pub initramfs: &'a mut File,
    pub command_line: &'a str,
}

/// Puts kernel, initramfs, ACPI tables and parameters into guest memory. Returns where the first vCPU begins.
pub(crate) fn load(memory: &GuestMemory, kernel: Kernel<'_>, vcpus: u8, devices: usize) -> Result<u64, BootError> {
    let loaded = BzImage::load(memory, None, kernel.image, None).map_err(BootError::Kernel)?;
    let mut header = loaded.setup_header.ok_or(BootError::NoEntry)?;
    if header.xloadflags & HAS_ENTRY_64 == 0 {
        return Err(BootError::NoEntry);
    }
    let (address, size) = load_initramfs(memory, kernel.initramfs, u64::from(header.initrd_addr_max), loaded.kernel_end)?;
    write_command_line(memory, kernel.command_line)?;
    header.type_of_loader = LOADER_UNDEFINED;
    header.cmd_line_ptr = layout::COMMAND_LINE as u32;
    header.cmdline_size = kernel.command_line.len() as u32;
    header.ramdisk_image = address as u32;
    header.ramdisk_size = size as u32;
    let tables = acpi::tables(vcpus, devices);
    write(memory, tables.address, &tables.bytes)?;
    let mut params = boot_params { hdr: header, acpi_rsdp_addr: tables.address, ..Default::default() };
    for (entry, (start, end, kind)) in params.e820_table.iter_mut().zip(memory_map(memory)) {
        *entry = boot_e820_entry { addr: start, size: end - start, r#type: kind };
        params.e820_entries += 1;
    }
    memory.write_obj(params, GuestAddress(layout::ZERO_PAGE)).map_err(BootError::Memory)?;
    Ok(loaded.kernel_load.0 + ENTRY_64)
}

/// As high as the kernel allows, where its decompression does not reach.
fn load_initramfs(memory: &GuestMemory, file: &mut File, highest: u64, kernel_end: u64) -> Result<(u64, u64), BootError> {
    let size = file.metadata().map_err(BootError::Initramfs)?.len();
    let too_large = || BootError::TooLarge { bytes: size };
    let end = low_end(memory).min(highest.saturating_add(1));
    let address = end.checked_sub(size).map(|start| start & !(PAGE - 1)).filter(|start| size <= MAX_INITRAMFS && *start > kernel_end);
    let address = address.ok_or_else(too_large)?;
    let length = usize::try_from(size).map_err(|_| too_large())?;
    let mut bytes = vec![0; length.min(CHUNK)];
    let mut done = 0;
    while done < length {
        let chunk = &mut bytes[..(length - done).min(CHUNK)];
        file.read_exact(chunk).map_err(BootError::Initramfs)?;
        write(memory, address + done as u64, chunk)?;
        done += chunk.len();
    }
    Ok((address, size))
}

const CHUNK: usize = 1 << 20;

fn write_command_line(memory: &GuestMemory, text: &str) -> Result<(), BootError> {
    if text.len() >= layout::COMMAND_LINE_MAX || text.contains('\0') {
        return Err(BootError::CommandLine);
    }
    write(memory, layout::COMMAND_LINE, text.as_bytes())?;
    write(memory, layout::COMMAND_LINE + text.len() as u64, &[0])
}

fn write(memory: &GuestMemory, address: u64, bytes: &[u8]) -> Result<(), BootError> {
    memory.write_slice(bytes, GuestAddress(address)).map_err(BootError::Memory)
}

/// What the kernel may use: start, end, kind.
fn memory_map(memory: &GuestMemory) -> Vec<(u64, u64, u32)> {
    let (low, high) = (low_end(memory), memory.last_addr().0 + 1);
    let mut map = vec![(0, layout::LOW_MEMORY_END, RAM), (layout::ACPI, layout::ACPI_END, RESERVED), (layout::ACPI_END, low, RAM)];
    if high > layout::HIGH_RAM {
        map.push((layout::HIGH_RAM, high, RAM));
    }
    map
}

/// Where RAM below the hole ends.
fn low_end(memory: &GuestMemory) -> u64 {
    memory.find_region(GuestAddress(0)).map_or(0, |region| region.len())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write;

    fn memory(mib: usize) -> GuestMemory {
        GuestMemory::from_ranges(&[(GuestAddress(0), mib << 20)]).unwrap()
    }

    fn file(bytes: &[u8]) -> File {
        use std::io::Seek;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn the_map_leaves_the_tables_alone() {
        let map = memory_map(&memory(512));
        assert_eq!(map[1], (0xe_0000, 0x10_0000, RESERVED));
        assert_eq!(map[2], (0x10_0000, 512 << 20, RAM));
    }

    #[test]
    fn an_initramfs_lies_at_the_end_of_low_memory_or_is_refused() {
        let memory = memory(16);
        let (address, size) = load_initramfs(&memory, &mut file(&[7; 5000]), u64::from(u32::MAX), 1 << 20).unwrap();
        assert_eq!((address, size), ((16 << 20) - 8192, 5000));
        let last: u8 = memory.read_obj(GuestAddress(address + 4999)).unwrap();
        assert_eq!(last, 7);
        assert!(matches!(load_initramfs(&memory, &mut file(&[0; 5000]), u64::from(u32::MAX), 16 << 20), Err(BootError::TooLarge { .. })));
    }

    #[test]
    fn what_is_no_kernel_is_refused() {
        let memory = memory(16);
        for bytes in [&b""[..], b"not a kernel", &[0; 4096]] {
            let kernel = Kernel { image: &mut file(bytes), initramfs: &mut file(b""), command_line: "" };
            assert!(matches!(load(&memory, kernel, 1, 1), Err(BootError::Kernel(_) | BootError::NoEntry)));
        }
    }

    #[test]
    fn a_command_line_is_bounded() {
        let memory = memory(1);
        assert!(write_command_line(&memory, "console=ttyS0").is_ok());
        assert!(matches!(write_command_line(&memory, &"a".repeat(layout::COMMAND_LINE_MAX)), Err(BootError::CommandLine)));
        assert!(matches!(write_command_line(&memory, "a\0b"), Err(BootError::CommandLine)));
    }
}
