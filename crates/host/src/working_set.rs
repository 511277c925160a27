//! Recording an image's working set (`workingset` beside its memory): which pages a copy touches, by watching one.
//!
//! The kernel knows which pages a process has mapped, but maps a read page's neighbours with it when they happen to be in the page cache. So the cache is
//! emptied of the image's memory first, and the copy reads single pages: then what is mapped is what was touched.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use emberbox_vmm::{Touched, encode_working_set};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::memory::guest_memory_address;
use crate::sys::memory::{PAGE, Page, touched_pages};

/// What is put in place before a copy runs costs its launch about a microsecond each: a copy that touches more than 32 MiB is better off without.
const MAX_FIRST: usize = 8 * 1024;
/// What is put in place meanwhile.
const MAX_LATER: usize = 32 * 1024;

/// By their offsets.
type Pages = BTreeMap<u64, Page>;

/// A copy that is watched.
pub(crate) struct Recording {
    pid: i32,
    /// The image's memory.
    base: PathBuf,
    length: u64,
    /// What it had touched when it first answered.
    first: Pages,
}

/// Takes an image's memory out of the page cache. Before its first copy: pages that somebody has mapped stay.
pub(crate) fn empty_cache(base: &File) -> io::Result<()> {
    Ok(posix_fadvise(base, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

impl Recording {
    /// Of the copy in process `pid`, which has just answered.
    pub(crate) fn begin(pid: i32, base: PathBuf, length: u64) -> io::Result<Self> {
        let first = touched_by(pid, &base, length)?;
        Ok(Self { pid, base, length, first })
    }

    /// The copy has done what there was to do: the bytes of its list, or None when it touches more than is of use.
    pub(crate) fn finish(&self) -> io::Result<Option<Vec<u8>>> {
        let all = touched_by(self.pid, &self.base, self.length)?;
        Ok(list(&self.first, &all).and_then(|list| encode_working_set(&list)))
    }
}

fn touched_by(pid: i32, base: &Path, length: u64) -> io::Result<Pages> {
    let address = guest_memory_address(pid, base, None)?;
    let mut pages = Pages::new();
    touched_pages(pid, address, length, |page, whose| {
        pages.insert(page, whose);
    })?;
    Ok(pages)
}

fn list(first: &Pages, all: &Pages) -> Option<Vec<Touched>> {
    // Counted one by one: the host may have taken pages of the first back since.
    let too_many_later = all.keys().filter(|page| !first.contains_key(page)).count() > MAX_LATER;
    let mut list: Vec<Touched> = Vec::new();
    for (page, whose) in all {
        let (written, later) = (*whose == Page::Own, !first.contains_key(page));
        if later && too_many_later {
            continue;
        }
        match list.last_mut() {
            Some(last) if last.offset + last.length == *page && (last.written, last.later) == (written, later) => last.length += PAGE,
            _ => list.push(Touched { offset: *page, length: PAGE, written, later }),
        }
    }
    (first.len() <= MAX_FIRST).then_some(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(pages: &[(u64, Page)]) -> Pages {
        pages.iter().map(|(page, whose)| (page * PAGE, *whose)).collect()
    }

    fn touched(page: u64, pages: u64, written: bool, later: bool) -> Touched {
        Touched { offset: page * PAGE, length: pages * PAGE, written, later }
    }

    #[test]
    fn neighbours_with_one_fate_are_one_entry() {
        use Page::{Own, Shared};
        let first = pages(&[(1, Shared), (2, Shared), (3, Own), (9, Shared)]);
        let all = pages(&[(1, Shared), (2, Shared), (3, Own), (4, Own), (9, Own), (10, Shared)]);
        let expected = [
            touched(1, 2, false, false),
            touched(3, 1, true, false),
            touched(4, 1, true, true),
            touched(9, 1, true, false),
            touched(10, 1, false, true),
        ];
        assert_eq!(list(&first, &all).as_deref(), Some(&expected[..]));
    }

    #[test]
    fn pages_that_were_taken_back_meanwhile_are_not_counted() {
        let (first, all) = (pages(&[(1, Page::Shared), (2, Page::Shared), (3, Page::Shared)]), pages(&[(2, Page::Shared), (7, Page::Own)]));
        assert_eq!(list(&first, &all), Some(vec![touched(2, 1, false, false), touched(7, 1, true, true)]));
    }

    #[test]
    fn what_is_too_much_is_left_out() {
        let many = |count: usize| (0..count as u64).map(|page| (page * PAGE, Page::Shared)).collect::<Pages>();
        assert_eq!(list(&many(MAX_FIRST + 1), &many(MAX_FIRST + 1)), None);
        let first = many(2);
        assert_eq!(list(&first, &many(MAX_LATER + 3)), Some(vec![touched(0, 2, false, false)]));
        assert_eq!(list(&first, &many(MAX_LATER + 2)).map(|list| list.len()), Some(2));
    }
}
