//! The first vCPU's registers at the kernel's 64-bit entry: long mode, the first gigabyte mapped one to one, the boot parameters in RSI.

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use super::layout;
use crate::memory::GuestMemory;

const EFER_LONG_MODE_ENABLED: u64 = 1 << 8;
const EFER_LONG_MODE_ACTIVE: u64 = 1 << 10;
const CR0_PROTECTED: u64 = 1;
const CR0_PAGING: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const PRESENT_WRITABLE: u64 = 0b11;
const LARGE_PAGE: u64 = 1 << 7;
const LARGE_PAGE_SIZE: u64 = 2 << 20;
const ENTRIES: u64 = 512;
/// Reserved bit of RFLAGS that is always set.
const FLAGS: u64 = 2;

const CODE: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const TASK: u64 = 0x008f_8b00_0000_ffff;
/// As Linux's boot protocol wants them: __BOOT_CS is entry 2, __BOOT_DS entry 3.
const DESCRIPTORS: [u64; 5] = [0, 0, CODE, DATA, TASK];

pub(crate) fn general(entry: u64) -> kvm_regs {
    kvm_regs { rip: entry, rsp: layout::BOOT_STACK, rbp: layout::BOOT_STACK, rsi: layout::ZERO_PAGE, rflags: FLAGS, ..Default::default() }
}

/// Puts descriptors and page tables into guest memory, and the special registers that use them into `sregs`.
pub(crate) fn special(memory: &GuestMemory, sregs: &mut kvm_sregs) -> Result<(), GuestMemoryError> {
    for (index, descriptor) in DESCRIPTORS.iter().enumerate() {
        memory.write_obj(*descriptor, GuestAddress(layout::GDT + index as u64 * 8))?;
    }
    let (top, middle, bottom) = (layout::PAGE_TABLES, layout::PAGE_TABLES + 0x1000, layout::PAGE_TABLES + 0x2000);
    memory.write_obj(middle | PRESENT_WRITABLE, GuestAddress(top))?;
    memory.write_obj(bottom | PRESENT_WRITABLE, GuestAddress(middle))?;
    for page in 0..ENTRIES {
        memory.write_obj((page * LARGE_PAGE_SIZE) | PRESENT_WRITABLE | LARGE_PAGE, GuestAddress(bottom + page * 8))?;
    }
    let data = segment(3);
    sregs.cs = segment(2);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr = segment(4);
    sregs.gdt = kvm_dtable { base: layout::GDT, limit: (DESCRIPTORS.len() * 8 - 1) as u16, ..Default::default() };
    sregs.idt = kvm_dtable::default();
    sregs.cr0 = CR0_PROTECTED | CR0_PAGING;
    sregs.cr3 = top;
    sregs.cr4 = CR4_PAE;
    sregs.efer = EFER_LONG_MODE_ENABLED | EFER_LONG_MODE_ACTIVE;
    Ok(())
}

/// A descriptor as KVM wants it.
fn segment(index: u16) -> kvm_segment {
    let descriptor = DESCRIPTORS[usize::from(index)];
    let bits = |shift: u32, mask: u64| ((descriptor >> shift) & mask) as u8;
    let granular = bits(55, 1);
    let limit = (descriptor & 0xffff) as u32 | ((descriptor >> 32) & 0xf_0000) as u32;
    kvm_segment {
        base: 0,
        limit: if granular == 1 { limit << 12 | 0xfff } else { limit },
        selector: index * 8,
        type_: bits(40, 0xf),
        s: bits(44, 1),
        dpl: bits(45, 3),
        present: bits(47, 1),
        avl: bits(52, 1),
        l: bits(53, 1),
        db: bits(54, 1),
        g: granular,
        unusable: 0,
        padding: 0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_entry_state_is_long_mode_with_the_kernels_segments() {
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let mut sregs = kvm_sregs::default();
        special(&memory, &mut sregs).unwrap();
        assert_eq!((sregs.cs.selector, sregs.cs.l, sregs.cs.db, sregs.cs.type_), (0x10, 1, 0, 0xb));
        assert_eq!((sregs.ds.selector, sregs.ds.limit, sregs.tr.type_, sregs.tr.s), (0x18, u32::MAX, 0xb, 0));
        let last: u64 = memory.read_obj(GuestAddress(layout::PAGE_TABLES + 0x2000 + 511 * 8)).unwrap();
        assert_eq!(last, 0x3fe0_0000 | 0x83);
    }
}
