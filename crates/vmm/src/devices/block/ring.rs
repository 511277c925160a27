//! Reads of a disk's files, several under way at once: an io_uring that can do nothing else.
//!
//! What a ring does, no filter of system calls sees. So this one is made before the process confines itself, with restrictions that the kernel then holds it
//! to for good: it reads, and only files that were registered before it was enabled (decision 73). Where a kernel does not offer that, there is no ring.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue, types};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

/// Reads under way at once.
pub(super) const ENTRIES: u32 = 64;
/// Threads that the kernel may start where a file system cannot read without waiting. Most can, and need none.
const KERNEL_THREADS: [u32; 2] = [8, 1];

/// A ring, at first without files and disabled.
pub(crate) struct Ring {
    uring: IoUring,
    under_way: u32,
}

impl Ring {
    /// Before the process confines itself: nobody can make one afterwards. An error where the kernel has none, or none that can be restricted.
    pub(crate) fn prepare() -> io::Result<Self> {
        let uring = IoUring::builder().setup_r_disabled().build(ENTRIES)?;
        let registered_files = squeue::Flags::FIXED_FILE.bits();
        let mut restrictions = [
            Restriction::sqe_op(opcode::Readv::CODE),
            Restriction::sqe_flags_allowed(registered_files),
            Restriction::sqe_flags_required(registered_files),
        ];
        uring.submitter().register_restrictions(&mut restrictions)?;
        uring.submitter().register_iowq_max_workers(&mut KERNEL_THREADS.clone())?;
        Ok(Self { uring, under_way: 0 })
    }

    /// Lets it read these files, which it numbers from 0, and no others from here on.
    pub(super) fn enable(&self, files: &[RawFd]) -> io::Result<()> {
        self.uring.submitter().register_files(files)?;
        self.uring.submitter().register_enable_rings()
    }

    pub(super) fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Takes a read, which starts with [`Self::submit`].
    ///
    /// # Safety
    /// `pieces` and the memory that they name must be there until [`Self::collect`] has given `tag` back.
    pub(super) unsafe fn read(&mut self, file: u32, pieces: &[libc::iovec], offset: u64, tag: u64) -> io::Result<()> {
        if self.under_way == ENTRIES {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let count = u32::try_from(pieces.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let read = opcode::Readv::new(types::Fixed(file), pieces.as_ptr(), count).offset(offset).build().user_data(tag);
        // SAFETY: the caller keeps what the entry points to.
        unsafe { self.uring.submission().push(&read) }.map_err(io::Error::other)?;
        self.under_way += 1;
        Ok(())
    }

    /// Starts what has been taken. What finds its pages in the host's cache has ended when this returns.
    pub(super) fn submit(&mut self) {
        if !self.uring.submission().is_empty() {
            self.enter(0);
        }
    }

    /// Hands on each read that has ended: its tag, and how many bytes were read or a negative error. Returns whether there was one.
    pub(super) fn collect(&mut self, mut ended: impl FnMut(u64, i32)) -> bool {
        let before = self.under_way;
        for completion in self.uring.completion() {
            self.under_way -= 1;
            ended(completion.user_data(), completion.result());
        }
        self.under_way < before
    }

    /// Waits for a read to end, or for `bell` to ring, which is then taken as heard.
    pub(super) fn wait(&self, bell: Option<&EventFd>) {
        // SAFETY: ring and bell are borrowed, so open, until this returns.
        let readable = |fd: RawFd| PollFd::new(unsafe { BorrowedFd::borrow_raw(fd) }, PollFlags::POLLIN);
        let mut polled = vec![readable(self.uring.as_raw_fd())];
        polled.extend(bell.map(|bell| readable(bell.as_raw_fd())));
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => lost(&error.into()),
        }
        // It does not block.
        let _ = bell.map(EventFd::read);
    }

    /// Waits for all reads to end, whatever became of them.
    pub(super) fn settle(&mut self) {
        while self.under_way > 0 {
            self.enter(1);
            self.collect(|_, _| {});
        }
    }

    fn enter(&mut self, until: usize) {
        while let Err(error) = self.uring.submit_and_wait(until) {
            match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => std::thread::yield_now(),
                _ => lost(&error),
            }
        }
    }
}

/// The kernel may still write into memory that is about to be somebody else's.
fn lost(error: &io::Error) -> ! {
    crate::end::now(&format!("reads of a disk cannot be waited for: {error}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    /// Everywhere but where the kernel has none, or has it switched off.
    fn ring() -> Option<Ring> {
        Ring::prepare().map_err(|error| println!("skipped: no io_uring here: {error}")).ok()
    }

    fn file(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn iovec(bytes: &mut [u8]) -> libc::iovec {
        libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
    }

    /// Pushes any entry and returns its result, or the error of the submission.
    fn submit(ring: &mut Ring, entry: &squeue::Entry) -> io::Result<i32> {
        // SAFETY: what the entries of these tests point to outlives the wait.
        unsafe { ring.uring.submission().push(entry) }.unwrap();
        ring.uring.submit_and_wait(1)?;
        Ok(ring.uring.completion().next().unwrap().result())
    }

    #[test]
    fn reads_of_several_files_end_with_their_tags() {
        let Some(mut ring) = ring() else { return };
        let (first, second) = (file(b"first"), file(b"the second"));
        ring.enable(&[first.as_raw_fd(), second.as_raw_fd()]).unwrap();
        let (mut one, mut two, mut three) = ([0; 5], [0; 6], [0; 100]);
        let pieces = [[iovec(&mut one)], [iovec(&mut two)], [iovec(&mut three)]];
        for (tag, (file, offset)) in [(0, 0), (1, 4), (1, 8)].into_iter().enumerate() {
            // SAFETY: pieces and arrays live until all three have ended.
            unsafe { ring.read(file, &pieces[tag], offset, tag as u64) }.unwrap();
        }
        let mut ended = Vec::new();
        ring.submit();
        while ring.under_way() > 0 {
            ring.wait(None);
            assert!(ring.collect(|tag, result| ended.push((tag, result))));
        }
        ended.sort_unstable();
        assert_eq!(ended, [(0, 5), (1, 6), (2, 2)], "the last one meets the end of its file");
        assert_eq!((&one, &two, &three[..2]), (b"first", b"second", &b"nd"[..]));
    }

    /// Somebody who has taken over the process can put anything into the ring: it does none of it.
    #[test]
    fn a_ring_does_nothing_but_read_its_files() {
        let Some(mut ring) = ring() else { return };
        let (own, other) = (file(b"own"), file(b"other"));
        let mut bytes = [0; 5];
        let pieces = [iovec(&mut bytes)];
        ring.enable(&[own.as_raw_fd()]).unwrap();
        let refused = [
            opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"/etc/passwd".as_ptr()).build(),
            opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
            opcode::Nop::new().build(),
            opcode::Writev::new(types::Fixed(0), pieces.as_ptr(), 1).build(),
            // By a number of the process, not of the ring.
            opcode::Readv::new(types::Fd(other.as_raw_fd()), pieces.as_ptr(), 1).build(),
            opcode::Readv::new(types::Fixed(0), pieces.as_ptr(), 1).build().flags(squeue::Flags::ASYNC),
        ];
        for (number, entry) in refused.iter().enumerate() {
            assert_eq!(submit(&mut ring, entry).unwrap(), -libc::EACCES, "entry {number}");
        }
        assert_eq!(submit(&mut ring, &opcode::Readv::new(types::Fixed(1), pieces.as_ptr(), 1).build()).unwrap(), -libc::EBADF);
        assert_eq!(submit(&mut ring, &opcode::Readv::new(types::Fixed(0), pieces.as_ptr(), 1).build()).unwrap(), 3);
        // Neither can it be given more, nor be let off its restrictions.
        let submitter = ring.uring.submitter();
        for error in [
            submitter.register_files_update(0, &[other.as_raw_fd()]).map(drop).unwrap_err(),
            submitter.unregister_files().unwrap_err(),
            submitter.register_restrictions(&mut [Restriction::sqe_op(opcode::Writev::CODE)]).unwrap_err(),
        ] {
            assert!(matches!(error.raw_os_error(), Some(libc::EACCES | libc::EBADFD)), "{error}");
        }
    }

    #[test]
    fn who_waits_hears_the_bell_once() {
        let Some(ring) = ring() else { return };
        let bell = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        bell.write(3).unwrap();
        ring.wait(Some(&bell));
        assert!(bell.read().is_err(), "it has been heard");
    }

    #[test]
    fn a_ring_that_is_not_enabled_does_nothing() {
        let Some(mut ring) = ring() else { return };
        let mut bytes = [0; 1];
        let pieces = [iovec(&mut bytes)];
        let error = submit(&mut ring, &opcode::Readv::new(types::Fixed(0), pieces.as_ptr(), 1).build()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
    }
}
