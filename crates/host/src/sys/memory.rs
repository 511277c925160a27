//! Reading the memory of a stopped virtual machine process: which pages it has changed, and what they hold.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

pub(crate) const PAGE: u64 = 4096;

/// `/proc/<pid>/pagemap`: page present, page swapped, page belongs to a file or shared memory (kernel: Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE_OR_SHARED: u64 = 1 << 61;

/// Entries of pagemap read at once: 2 MiB of guest memory per 4 KiB of entries would be slow, this is 256 MiB per read.
const ENTRIES: usize = 64 * 1024;

/// Whose a page is that a process has in its private mapping of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// The file's: at most read.
    Shared,
    /// Its own: written.
    Own,
}

/// Calls `found` with the offset from `base` of each page in `base..base + length` that the process has touched, or that was mapped beside one, since it mapped
/// a file there privately. Offsets ascend.
pub(crate) fn touched_pages(pid: i32, base: u64, length: u64, mut found: impl FnMut(u64, Page)) -> io::Result<()> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut buffer = vec![0u8; ENTRIES * 8];
    let pages = length / PAGE;
    let mut page = 0;
    while page < pages {
        let count = usize::try_from(pages - page).unwrap_or(ENTRIES).min(ENTRIES);
        let chunk = &mut buffer[..count * 8];
        pagemap.read_exact_at(chunk, (base / PAGE + page) * 8)?;
        for (index, entry) in chunk.chunks_exact(8).enumerate() {
            let entry = u64::from_ne_bytes(entry.try_into().expect("chunks_exact(8) gives eight bytes"));
            let whose = match entry {
                entry if entry & SWAPPED != 0 => Page::Own,
                entry if entry & PRESENT == 0 => continue,
                entry if entry & FILE_OR_SHARED == 0 => Page::Own,
                _ => Page::Shared,
            };
            found((page + index as u64) * PAGE, whose);
        }
        page += count as u64;
    }
    Ok(())
}

/// Fills `to` from the address space of a process.
pub(crate) fn read_process(pid: i32, address: u64, to: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < to.len() {
        let base = usize::try_from(address).map_err(io::Error::other)? + done;
        let remote = [RemoteIoVec { base, len: to.len() - done }];
        let mut local = [io::IoSliceMut::new(&mut to[done..])];
        match process_vm_readv(Pid::from_raw(pid), &mut local, &remote)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => done += read,
        }
    }
    Ok(())
}
