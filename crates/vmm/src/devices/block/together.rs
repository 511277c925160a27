//! The loop of a disk that has a ring: all reads that the driver has asked for are under way at once, and those that come meanwhile join them, so that a slow
//! disk of the host's is asked for all of them. Whatever is no read is carried out where it is met, as without a ring.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::VolatileSlice;

use super::disk::{Disk, Extent};
use super::request::Request;
use super::ring::{ENTRIES, Ring};
use crate::devices::virtio::{Fault, Queues, Segments, Served, Turn};
use crate::memory::GuestMemory;

/// Requests under way at once.
const AT_ONCE: usize = 32;
/// Places in the disk's files that one request may read from and still go with others: clusters need not lie behind each other.
pub(super) const MAX_EXTENTS: usize = 8;

pub(super) fn serve(disk: &mut Disk, ring: &mut Ring, queues: &mut Queues<'_>) -> Result<Served, Fault> {
    let (memory, bell, tell) = (queues.ram.memory(), queues.bells.first(), queues.tell);
    let Some(queue) = queues.queues.first_mut().filter(|queue| queue.ready()) else { return Ok(Served::default()) };
    let mut reads = Reads { ring, under_way: Vec::new() };
    let (mut served, mut turn, mut told) = (Served::default(), Turn::begin(), queue.next_used());
    loop {
        queue.disable_notification(memory)?;
        loop {
            let takes_more = reads.has_room() && !turn.is_over();
            if let Some(chain) = if takes_more { queue.iter(memory)?.next() } else { None } {
                turn.count();
                let head = chain.head_index();
                let request = Request::of(Segments::of(memory, chain)?)?;
                if request.gives_up_space() {
                    // What it frees must not be read any more.
                    reads.finish(disk, queue, memory)?;
                }
                let alone = reads.is_empty() && !waits(queue, memory)?;
                if let Some(written) = reads.take(head, request, alone, disk) {
                    queue.add_used(memory, head, written)?;
                }
                continue;
            }
            if reads.is_empty() {
                break;
            }
            reads.ring.submit();
            if reads.collect(disk, queue, memory)? {
                continue;
            }
            // Whoever waits for what has ended so far need not wait for the rest.
            if queue.next_used() != told && queue.needs_notification(memory)? {
                tell();
            }
            told = queue.next_used();
            if !takes_more {
                reads.ring.wait(None);
            } else if !queue.enable_notification(memory)? {
                reads.ring.wait(bell);
                queue.disable_notification(memory)?;
            }
        }
        served.more = turn.is_over();
        if served.more || !queue.enable_notification(memory)? {
            break;
        }
    }
    if queue.next_used() != told {
        served.interrupt = queue.needs_notification(memory)?;
    }
    Ok(served)
}

/// Whether another chain has come.
fn waits(queue: &Queue, memory: &GuestMemory) -> Result<bool, Fault> {
    Ok(queue.avail_idx(memory, Ordering::Acquire)?.0 != queue.next_avail())
}

/// What became of a read that was not to wait.
enum AtOnce {
    Done,
    WouldWait,
    /// Of a file system that knows no such reads, the kernel hands those of a ring to threads of its own: not worth it for one.
    CannotTell,
}

/// Reads what the host's page cache has, in one piece: cheaper than by a ring when there is nothing else to read.
fn read_at_once(disk: &Disk, request: &Request<'_>, extents: &[Extent]) -> AtOnce {
    let [extent] = extents else { return AtOnce::WouldWait };
    let (pieces, file) = (split(request.writable(), extents), disk.descriptors()[extent.file as usize]);
    let (Ok(count), Ok(offset)) = (i32::try_from(pieces[0].len()), i64::try_from(extent.offset)) else { return AtOnce::WouldWait };
    // SAFETY: the pieces are guest memory, mapped for as long as the process lives, and the file is open for as long as the disk is.
    let read = unsafe { libc::preadv2(file, pieces[0].as_ptr(), count, offset, libc::RWF_NOWAIT) };
    match u64::try_from(read) {
        Ok(length) if length == extent.length => AtOnce::Done,
        Err(_) if io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP) => AtOnce::CannotTell,
        _ => AtOnce::WouldWait,
    }
}

/// Requests under way; the place of each is its reads' tag. When they are given up, all of them have ended.
struct Reads<'r, 'm> {
    ring: &'r mut Ring,
    under_way: Vec<Option<UnderWay<'m>>>,
}

struct UnderWay<'m> {
    head: u16,
    request: Request<'m>,
    /// What the kernel was given for each extent: it looks there until the read has ended.
    parts: Vec<Vec<libc::iovec>>,
    /// Of the extents, those that are being read.
    left: usize,
    /// Bytes that no read has brought: in the end none, or something went wrong.
    missing: i64,
}

impl<'m> Reads<'_, 'm> {
    fn is_empty(&self) -> bool {
        self.ring.under_way() == 0
    }

    fn has_room(&self) -> bool {
        self.free() < AT_ONCE && self.ring.under_way() + MAX_EXTENTS as u32 <= ENTRIES
    }

    fn free(&self) -> usize {
        self.under_way.iter().position(Option::is_none).unwrap_or(self.under_way.len())
    }

    /// Starts a request, or carries it out. Returns how many bytes one that is done has written.
    fn take(&mut self, head: u16, request: Request<'m>, alone: bool, disk: &mut Disk) -> Option<u32> {
        let Some(extents) = request.extents(disk) else { return Some(request.serve(disk)) };
        match if alone { read_at_once(disk, &request, &extents) } else { AtOnce::WouldWait } {
            AtOnce::Done => Some(request.answer_read()),
            AtOnce::CannotTell => Some(request.serve(disk)),
            AtOnce::WouldWait => self.start(head, request, &extents).map(|request| request.serve(disk)),
        }
    }

    /// Gives back a request that cannot be started.
    fn start(&mut self, head: u16, request: Request<'m>, extents: &[Extent]) -> Option<Request<'m>> {
        let place = self.free();
        if place == self.under_way.len() {
            self.under_way.push(None);
        }
        let parts = split(request.writable(), extents);
        let missing = extents.iter().map(|extent| extent.length as i64).sum();
        let under_way = self.under_way[place].insert(UnderWay { head, request, parts, left: 0, missing });
        for (extent, pieces) in extents.iter().zip(&under_way.parts) {
            // SAFETY: `pieces` is in `under_way` and names guest memory, which is mapped for as long as the process lives. Its place is emptied when all of
            // its reads have ended, and `drop` waits for that.
            if unsafe { self.ring.read(extent.file, pieces, extent.offset, place as u64) }.is_ok() {
                under_way.left += 1;
            }
        }
        if under_way.left > 0 {
            return None;
        }
        self.under_way[place].take().map(|under_way| under_way.request)
    }

    fn finish(&mut self, disk: &mut Disk, queue: &mut Queue, memory: &GuestMemory) -> Result<(), Fault> {
        while !self.is_empty() {
            self.ring.submit();
            if !self.collect(disk, queue, memory)? {
                self.ring.wait(None);
            }
        }
        Ok(())
    }

    /// Answers the requests whose reads have ended, if there are any. One that was not read as a whole is read again, alone: then its error is its own.
    fn collect(&mut self, disk: &mut Disk, queue: &mut Queue, memory: &GuestMemory) -> Result<bool, Fault> {
        let mut ended = Vec::new();
        let Self { ring, under_way } = self;
        let any = ring.collect(|tag, result| {
            let place = tag as usize;
            let Some(request) = under_way[place].as_mut() else { return };
            request.left -= 1;
            request.missing -= i64::from(result.max(0));
            if request.left == 0 {
                ended.extend(under_way[place].take());
            }
        });
        for UnderWay { head, request, missing, .. } in ended {
            let written = if missing == 0 { request.answer_read() } else { request.serve(disk) };
            queue.add_used(memory, head, written)?;
        }
        Ok(any)
    }
}

impl Drop for Reads<'_, '_> {
    fn drop(&mut self) {
        self.ring.settle();
    }
}

/// The pieces of guest memory that each extent is read into.
fn split(pieces: &[VolatileSlice<'_>], extents: &[Extent]) -> Vec<Vec<libc::iovec>> {
    let mut pieces = pieces.iter().map(|piece| (piece.ptr_guard_mut().as_ptr(), piece.len()));
    let (mut at, mut left) = (std::ptr::null_mut::<u8>(), 0);
    let mut part = |extent: &Extent| {
        let (mut vector, mut wanted) = (Vec::new(), extent.length as usize);
        while wanted > 0 {
            if left == 0 {
                let Some(next) = pieces.next() else { break };
                (at, left) = next;
            }
            let length = left.min(wanted);
            vector.push(libc::iovec { iov_base: at.cast(), iov_len: length });
            at = at.wrapping_add(length);
            left -= length;
            wanted -= length;
        }
        vector
    };
    extents.iter().map(&mut part).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::disk::DiskFormat;
    use super::*;
    use crate::devices::virtio::testing::{self, ram};
    use crate::memory::GuestRam;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;
    use vm_memory::{Bytes, GuestAddress};
    use vmm_sys_util::eventfd::EventFd;

    const HEADERS: u64 = 0x8000;
    const STATUSES: u64 = 0x9000;
    const DATA: u64 = 0x1_0000;
    const DATA_EACH: u64 = 0x4000;
    const SECTORS: u64 = 4096;
    const READ: u32 = 0;
    const DISCARD: u32 = 11;

    /// A qcow2 file without a cluster of its own, as the fuzzer makes them.
    fn overlay() -> File {
        let file = tempfile::tempfile().unwrap();
        crate::fuzzing::write_empty_overlay(&file).unwrap();
        file
    }

    /// Every sector begins with its number.
    fn base() -> File {
        let base = tempfile::tempfile().unwrap();
        base.set_len(SECTORS * 512).unwrap();
        for sector in 0..SECTORS {
            base.write_all_at(&sector.to_le_bytes(), sector * 512).unwrap();
        }
        base
    }

    /// None where there is no io_uring.
    fn disk() -> Option<(Disk, Ring)> {
        let ring = Ring::prepare().map_err(|error| println!("skipped: no io_uring here: {error}")).ok()?;
        let disk = Disk::open("root".into(), false, vec![(DiskFormat::Qcow2, overlay()), (DiskFormat::Raw, base())]).unwrap();
        ring.enable(disk.descriptors()).unwrap();
        Some((disk, ring))
    }

    /// A queue's driver with requests by their numbers.
    struct Driver<'a> {
        ring: testing::Ring<'a>,
        ram: &'a GuestRam,
        requests: u64,
    }

    impl<'a> Driver<'a> {
        fn new(ram: &'a GuestRam) -> Self {
            Self { ring: testing::Ring::new(ram.memory(), 128), ram, requests: 0 }
        }

        /// A request whose data is in pieces of these lengths.
        fn add(&mut self, kind: u32, sector: u64, pieces: &[u32]) {
            let number = self.requests;
            self.requests += 1;
            let (header, status, mut at) = (HEADERS + number * 16, STATUSES + number, DATA + number * DATA_EACH);
            self.ram.memory().write_obj(kind, GuestAddress(header)).unwrap();
            self.ram.memory().write_obj(sector, GuestAddress(header + 8)).unwrap();
            self.ram.memory().write_obj(0xffu8, GuestAddress(status)).unwrap();
            let mut chain = vec![(header, 16, false)];
            for length in pieces {
                chain.push((at, *length, kind == READ));
                at += u64::from(*length);
            }
            chain.push((status, 1, true));
            self.ring.add(&chain);
        }

        fn serve(&mut self, disk: &mut Disk, ring: &mut Ring) -> Result<Served, Fault> {
            serve(disk, ring, &mut Queues { queues: std::slice::from_mut(&mut self.ring.queue), ram: self.ram, bells: &[], tell: &|| {} })
        }

        fn status(&self, number: u64) -> u8 {
            self.ram.memory().read_obj(GuestAddress(STATUSES + number)).unwrap()
        }

        fn data(&self, number: u64, length: u64) -> Vec<u8> {
            self.ring.bytes(DATA + number * DATA_EACH, length as usize)
        }
    }

    fn of_sectors(first: u64, count: u64) -> Vec<u8> {
        (first..first + count).flat_map(|sector| [&sector.to_le_bytes()[..], &[0; 504]].concat()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever comes together, from the overlay and from what backs it: each gets its own bytes, once.
        #[test]
        fn each_read_gets_its_bytes(
            reads in proptest::collection::vec((0..SECTORS - 32, 1u64..32, proptest::collection::vec(1u32..9, 0..3)), 1..40),
            written in proptest::collection::vec(0..SECTORS - 8, 0..6),
        ) {
            let Some((mut disk, mut ring)) = disk() else { return Ok(()) };
            for sector in written {
                // The same bytes, but now in the overlay.
                let mut bytes = of_sectors(sector, 8);
                disk.write(&[VolatileSlice::from(&mut bytes[..])], sector * 512).unwrap();
            }
            let ram = ram();
            let mut driver = Driver::new(&ram);
            let mut sent = Vec::new();
            // Descriptors for all, and memory.
            for (sector, count, cuts) in reads.into_iter().take(24) {
                let mut left = count as u32 * 512;
                let mut pieces: Vec<u32> = cuts.into_iter().map(|cut| (cut * 8).min(left / 4)).filter(|length| *length > 0).collect();
                left -= pieces.iter().sum::<u32>();
                pieces.push(left);
                driver.add(READ, sector, &pieces);
                sent.push((sector, count));
            }
            let served = driver.serve(&mut disk, &mut ring).unwrap();
            prop_assert!(served.interrupt && !served.more);
            let mut used = driver.ring.used();
            prop_assert_eq!(used.len(), sent.len());
            used.sort_unstable();
            for (number, ((sector, count), (_, written))) in (0u64..).zip(sent.into_iter().zip(used)) {
                prop_assert_eq!(driver.status(number), 0);
                prop_assert_eq!(u64::from(written), count * 512 + 1);
                prop_assert!(driver.data(number, count * 512) == of_sectors(sector, count), "sector {} of request {}", sector, number);
            }
        }
    }

    #[test]
    fn what_is_given_up_is_not_read_meanwhile_and_a_read_beyond_the_end_fails_alone() {
        let Some((mut disk, mut ring)) = disk() else { return };
        let ram = ram();
        let mut driver = Driver::new(&ram);
        driver.add(READ, 0, &[512]);
        driver.add(READ, disk.sectors() - 1, &[1024]);
        driver.add(READ, 8, &[512]);
        driver.add(DISCARD, 0, &[16]);
        ram.memory().write_obj(8u64, GuestAddress(DATA + 3 * DATA_EACH)).unwrap();
        ram.memory().write_obj(128u32, GuestAddress(DATA + 3 * DATA_EACH + 8)).unwrap();
        driver.add(READ, 9, &[512]);
        driver.serve(&mut disk, &mut ring).unwrap();
        assert_eq!(driver.ring.used().len(), 5);
        assert_eq!([0, 1, 2, 3, 4].map(|number| driver.status(number)), [0, 1, 0, 0, 0]);
        assert_eq!((driver.data(0, 512), driver.data(2, 512)), (of_sectors(0, 1), of_sectors(8, 1)));
        assert_eq!(ring.under_way(), 0);
    }

    /// Those before it may still be under way: nothing of them is written into memory after the driver has been told.
    #[test]
    fn a_chain_that_breaks_the_rules_waits_for_those_before_it() {
        let Some((mut disk, mut ring)) = disk() else { return };
        let ram = ram();
        let mut driver = Driver::new(&ram);
        driver.add(READ, 0, &[512]);
        driver.add(READ, 1, &[512]);
        driver.ring.add(&[(u64::MAX - 8, 16, false)]);
        assert!(driver.serve(&mut disk, &mut ring).is_err());
        assert_eq!(ring.under_way(), 0);
        assert_eq!(driver.data(1, 512), of_sectors(1, 1));
    }

    /// A read that takes long holds up neither those that came with it nor those that come later. What it reads is a pipe in the base's place.
    #[test]
    fn others_are_answered_and_more_are_taken_while_one_is_under_way() {
        let Ok(mut ring) = Ring::prepare() else { return println!("skipped: no io_uring here") };
        let (pipe, writer) = std::io::pipe().unwrap();
        let mut disk = Disk::open("root".into(), false, vec![(DiskFormat::Qcow2, overlay()), (DiskFormat::Raw, base())]).unwrap();
        disk.write(&[VolatileSlice::from(&mut of_sectors(0, 8)[..])], 0).unwrap();
        ring.enable(&[disk.descriptors()[0], pipe.as_raw_fd()]).unwrap();
        let (ram, bell, told) = (ram(), [EventFd::new(libc::EFD_NONBLOCK).unwrap()], Cell::new(0));
        let mut driver = Driver::new(&ram);
        driver.add(READ, 1024, &[512]);
        driver.add(READ, 0, &[512]);
        driver.add(READ, 1, &[512]);
        // The third has not come yet.
        driver.ring.set_available(2);
        let tell = || {
            told.set(told.get() + 1);
            match told.get() {
                1 => {
                    ram.memory().write_obj(3u16, GuestAddress(testing::AVAILABLE + 2)).unwrap();
                    bell[0].write(1).unwrap();
                }
                _ => (&writer).write_all(&[7; 512]).unwrap(),
            }
        };
        let mut queues = Queues { queues: std::slice::from_mut(&mut driver.ring.queue), ram: &ram, bells: &bell, tell: &tell };
        let served = serve(&mut disk, &mut ring, &mut queues).unwrap();
        assert_eq!((told.get(), served.interrupt), (2, true));
        assert_eq!(driver.ring.used().iter().map(|(head, _)| head / 3).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!((driver.data(0, 512), driver.data(2, 512)), (vec![7; 512], of_sectors(1, 1)));
    }
}
