//! Guest RAM: one mapping of one file, seen by the guest in two pieces around the hole for devices below 4 GiB.
//!
//! A fresh machine shares the file, so that a snapshot needs no copy of it. A restored one maps it privately: clean pages are the page cache's, what the
//! guest writes is its own. The pages of an earlier suspension (its *layer*) are mapped over that, again privately. Nothing here can write a snapshot.
//!
//! The mapping lasts as long as the process: threads of devices and vCPUs hold pointers into it without counting.
#![allow(unsafe_code)]

mod runs;
pub(crate) mod working_set;

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::{GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MmapRegion};

use crate::arch::layout;
use working_set::Touched;

/// What devices read and write: bounds are checked at every access.
pub(crate) type GuestMemory = GuestMemoryMmap<()>;

const MIB: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum MemoryError {
    #[error("could not map guest memory")]
    Map(#[source] io::Error),
    #[error("the memory file holds {found} bytes, the machine has {expected}")]
    Size { found: u64, expected: u64 },
    #[error("the list of a suspended machine's pages is damaged")]
    Runs,
    #[error("could not read the list of a suspended machine's pages")]
    ReadRuns(#[source] io::Error),
    #[error("the list of pages that copies touch is damaged")]
    WorkingSet,
    #[error("could not read the list of pages that copies touch")]
    ReadWorkingSet(#[source] io::Error),
    #[error("guest memory does not fit the machine's layout")]
    Layout,
}

/// How the guest's writes reach the file.
enum Backing {
    /// The file itself: what the guest gives back is punched out of it.
    Shared(File),
    Private,
}

/// The guest's RAM.
pub(crate) struct GuestRam {
    memory: GuestMemory,
    backing: Backing,
}

impl GuestRam {
    /// The RAM of a fresh machine, kept in `file`.
    pub(crate) fn shared(file: File, mib: u32) -> Result<Self, MemoryError> {
        let length = checked_length(&file, mib)?;
        let address = map(&file, length, libc::MAP_SHARED)?;
        Ok(Self { memory: regions(address, length)?, backing: Backing::Shared(file) })
    }

    /// The RAM of a snapshot, copied on write, with a suspended machine's own pages (a file and the list of its runs) over it.
    pub(crate) fn private(base: &File, layer: Option<(&File, &File)>, mib: u32) -> Result<Self, MemoryError> {
        let length = checked_length(base, mib)?;
        let address = map(base, length, libc::MAP_PRIVATE)?;
        if let Some((pages, list)) = layer {
            checked_length(pages, mib)?;
            for run in runs::read(list, length)? {
                map_over(address, run, pages)?;
            }
        }
        Ok(Self { memory: regions(address, length)?, backing: Backing::Private })
    }

    pub(crate) fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Has the host read one page at a time, so that what is in its page cache afterwards is what the guest has touched.
    pub(crate) fn read_single_pages(&self) -> Result<(), MemoryError> {
        self.memory
            .iter()
            .try_for_each(|region| advise(region.get_mmap().as_ptr(), region.len(), libc::MADV_RANDOM))
            .map_err(MemoryError::Map)
    }

    /// A list of pages in the file that names them by their offset.
    pub(crate) fn working_set(&self, list: &File) -> Result<Vec<Touched>, MemoryError> {
        working_set::read(list, self.memory.iter().map(GuestMemoryRegion::len).sum())
    }

    /// Puts pages into place as the guest's first access would. They are within memory, as [`GuestRam::working_set`] has checked.
    pub(crate) fn populate(&self, pages: Touched) -> io::Result<()> {
        let advice = if pages.written { libc::MADV_POPULATE_WRITE } else { libc::MADV_POPULATE_READ };
        for (guest, length) in self.pieces(pages) {
            let Some(region) = self.memory.find_region(guest) else { continue };
            let address = region.get_mmap().as_ptr().wrapping_add((guest.0 - region.start_addr().0) as usize);
            advise(address, length, advice)?;
        }
        Ok(())
    }

    /// Where the guest sees them: in two pieces when they span the hole.
    pub(crate) fn pieces(&self, pages: Touched) -> impl Iterator<Item = (GuestAddress, u64)> {
        let end = pages.offset + pages.length;
        let low = (pages.offset < layout::LOW_RAM_END).then(|| (pages.offset, end.min(layout::LOW_RAM_END)));
        let high = (end > layout::LOW_RAM_END).then(|| (pages.offset.max(layout::LOW_RAM_END), end));
        let moved = high.map(|(from, to)| (from - layout::LOW_RAM_END + layout::HIGH_RAM, to - layout::LOW_RAM_END + layout::HIGH_RAM));
        low.into_iter().chain(moved).map(|(from, to)| (GuestAddress(from), to - from))
    }

    /// The pieces that KVM is told of: guest address, length, address in this process.
    pub(crate) fn slots(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        self.memory.iter().map(|region| (region.start_addr().0, region.len(), region.get_mmap().as_ptr() as u64))
    }

    /// Gives pages back to the host. What the guest reads there afterwards is zero or what the snapshot held: it has declared them free.
    ///
    /// The range may be anything; only what lies in one piece of RAM is given back.
    pub(crate) fn discard(&self, start: GuestAddress, length: u64) -> io::Result<()> {
        let Some(region) = self.memory.find_region(start) else { return Err(io::ErrorKind::InvalidInput.into()) };
        let within = start.0 - region.start_addr().0;
        if length == 0 || length > region.len() - within || !start.0.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match &self.backing {
            Backing::Shared(file) => {
                let offset = within + if start.0 >= layout::HIGH_RAM { layout::LOW_RAM_END } else { 0 };
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                // SAFETY: fallocate takes a descriptor that is open and numbers; offset and length lie within the file, as checked above.
                check(unsafe { libc::fallocate(file.as_raw_fd(), mode, offset as i64, length as i64) })
            }
            Backing::Private => {
                let address = region.get_mmap().as_ptr().wrapping_add(within as usize);
                advise(address, length, libc::MADV_DONTNEED)
            }
        }
    }
}

const PAGE: u64 = 4096;

/// Of a range within one mapping of guest RAM.
fn advise(address: *mut u8, length: u64, advice: i32) -> io::Result<()> {
    // SAFETY: nobody holds Rust references into guest RAM (vm-memory hands out volatile accesses alone). Its pages stay mapped; at most their content
    // changes, as the guest itself could have done.
    check(unsafe { libc::madvise(address.cast(), length as usize, advice) })
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A file shorter than the mapping would end the process with SIGBUS at the guest's first access beyond it.
fn checked_length(file: &File, mib: u32) -> Result<u64, MemoryError> {
    let expected = u64::from(mib) * MIB;
    let found = file.metadata().map_err(MemoryError::Map)?.len();
    if found == expected { Ok(expected) } else { Err(MemoryError::Size { found, expected }) }
}

fn map(file: &File, length: u64, sharing: i32) -> Result<*mut u8, MemoryError> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, sharing | libc::MAP_NORESERVE);
    // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), length as usize, protection, flags, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(MemoryError::Map(io::Error::last_os_error()));
    }
    // A core dump of the monitor must not hold a guest's memory.
    advise(address.cast(), length, libc::MADV_DONTDUMP).map_err(MemoryError::Map)?;
    Ok(address.cast())
}

fn map_over(base: *mut u8, run: runs::Run, pages: &File) -> Result<(), MemoryError> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_NORESERVE | libc::MAP_FIXED);
    let address = base.wrapping_add(run.offset as usize);
    // SAFETY: `runs::read` has checked that the run lies within the mapping at `base`, which is ours and not in use yet: only guest RAM is replaced.
    let mapped = unsafe { libc::mmap(address.cast(), run.length as usize, protection, flags, pages.as_raw_fd(), run.offset as i64) };
    if mapped == libc::MAP_FAILED { Err(MemoryError::Map(io::Error::last_os_error())) } else { Ok(()) }
}

fn regions(address: *mut u8, length: u64) -> Result<GuestMemory, MemoryError> {
    let low = length.min(layout::LOW_RAM_END);
    let mut regions = vec![region(address, low, 0)?];
    if length > low {
        regions.push(region(address.wrapping_add(low as usize), length - low, layout::HIGH_RAM)?);
    }
    GuestMemory::from_regions(regions).map_err(|_| MemoryError::Layout)
}

fn region(address: *mut u8, length: u64, guest: u64) -> Result<GuestRegionMmap<()>, MemoryError> {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_NORESERVE);
    // SAFETY: the range is part of the mapping made by `map`, which is never unmapped.
    let mapping = unsafe { MmapRegion::build_raw(address, length as usize, protection, flags) }.map_err(|_| MemoryError::Layout)?;
    GuestRegionMmap::new(mapping, GuestAddress(guest)).ok_or(MemoryError::Layout)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::FileExt;
    use vm_memory::Bytes;

    fn file(mib: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(mib * MIB).unwrap();
        file
    }

    fn list(runs: &[(u64, u64)]) -> File {
        let list = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = runs.iter().flat_map(|(offset, length)| [offset.to_le_bytes(), length.to_le_bytes()]).flatten().collect();
        list.write_all_at(&bytes, 0).unwrap();
        list
    }

    #[test]
    fn a_private_machine_never_writes_its_base_or_its_layer() {
        let (base, pages) = (file(2), file(2));
        base.write_all_at(b"base", 0).unwrap();
        base.write_all_at(b"base", 8192).unwrap();
        pages.write_all_at(b"page", 8192).unwrap();
        let ram = GuestRam::private(&base, Some((&pages, &list(&[(8192, 4096)]))), 2).unwrap();
        let mut seen = [0; 4];
        ram.memory().read_slice(&mut seen, GuestAddress(0)).unwrap();
        assert_eq!(&seen, b"base");
        ram.memory().read_slice(&mut seen, GuestAddress(8192)).unwrap();
        assert_eq!(&seen, b"page");
        ram.memory().write_slice(b"mine", GuestAddress(0)).unwrap();
        ram.memory().write_slice(b"mine", GuestAddress(8192)).unwrap();
        for (file, at, kept) in [(&base, 0, b"base"), (&base, 8192, b"base"), (&pages, 8192, b"page")] {
            file.read_exact_at(&mut seen, at).unwrap();
            assert_eq!(&seen, kept);
        }
        ram.discard(GuestAddress(8192), 4096).unwrap();
        ram.memory().read_slice(&mut seen, GuestAddress(8192)).unwrap();
        assert_eq!(&seen, b"page", "a page given back is the snapshot's again");
    }

    #[test]
    fn memory_has_a_hole_below_four_gigabytes() {
        let ram = GuestRam::shared(file(4096), 4096).unwrap();
        let slots: Vec<_> = ram.slots().map(|(guest, length, _)| (guest, length)).collect();
        assert_eq!(slots, [(0, 3 << 30), (4 << 30, 1 << 30)]);
        let addresses: Vec<_> = ram.slots().map(|(_, _, address)| address).collect();
        assert_eq!(addresses[1] - addresses[0], 3 << 30, "one mapping: the host finds a page by its offset");
    }

    #[test]
    fn pages_of_the_working_set_are_in_place_and_the_base_is_as_it_was() {
        let base = file(4096);
        base.write_all_at(b"base", 8192).unwrap();
        let ram = GuestRam::private(&base, None, 4096).unwrap();
        ram.read_single_pages().unwrap();
        let across = Touched { offset: (3 << 30) - PAGE, length: 2 * PAGE, written: false, later: false };
        assert_eq!(ram.pieces(across).collect::<Vec<_>>(), [(GuestAddress((3 << 30) - PAGE), PAGE), (GuestAddress(4 << 30), PAGE)]);
        let written = Touched { offset: 8192, length: PAGE, written: true, later: false };
        for pages in [across, written] {
            ram.populate(pages).unwrap();
        }
        let (_, _, address) = ram.slots().next().unwrap();
        let resident = |offset: u64| {
            let mut page = [0u8];
            // SAFETY: one page of the mapping, and one byte for the answer.
            check(unsafe { libc::mincore((address + offset) as *mut _, PAGE as usize, page.as_mut_ptr()) }).unwrap();
            page[0] & 1 == 1
        };
        assert!(resident(8192) && resident((3 << 30) - PAGE) && resident(3 << 30));
        assert!(!resident(1 << 20));
        let mut seen = [0; 4];
        base.read_exact_at(&mut seen, 8192).unwrap();
        assert_eq!(&seen, b"base");
    }

    #[test]
    fn a_fresh_machines_discarded_pages_leave_the_file() {
        let shared = file(1);
        let ram = GuestRam::shared(shared.try_clone().unwrap(), 1).unwrap();
        ram.memory().write_slice(b"guest", GuestAddress(4096)).unwrap();
        let mut seen = [0; 5];
        shared.read_exact_at(&mut seen, 4096).unwrap();
        assert_eq!(&seen, b"guest");
        ram.discard(GuestAddress(4096), 4096).unwrap();
        shared.read_exact_at(&mut seen, 4096).unwrap();
        assert_eq!(&seen, &[0; 5]);
    }

    #[test]
    fn only_whole_pages_of_ram_are_discarded() {
        let ram = GuestRam::private(&file(1), None, 1).unwrap();
        for (start, length) in [(0, 0), (1, 4096), (0, 4095), (0, 2 * MIB), (4096, MIB), (u64::MAX - 4095, 4096), (1 << 40, 4096)] {
            assert!(ram.discard(GuestAddress(start), length).is_err(), "{start:#x}+{length:#x}");
        }
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        assert!(matches!(GuestRam::shared(file(1), 2), Err(MemoryError::Size { .. })));
        assert!(matches!(GuestRam::private(&file(2), Some((&file(1), &list(&[]))), 2), Err(MemoryError::Size { .. })));
    }
}
