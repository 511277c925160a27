//! Starting to write a file's pages to the disk before somebody waits for it.

use std::fs::File;
use std::os::fd::AsRawFd;

/// Has the kernel begin to write `offset..offset + length` and returns at once, unless the disk's queue is full. Only a hint: what it fails at, the sync that must
/// follow does and says.
pub(crate) fn begin(file: &File, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the call touches no memory of this process.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) };
}
