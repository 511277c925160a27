//! `workingset`: the pages that copies of a snapshot touch when they come up, recorded from one copy. Having them in place before the guest runs saves it
//! a fault for each. It says nothing about what is in them: with a wrong list a copy is slower, never another.
//!
//! Entries ascend; each is three little-endian u64: offset, length, and which of these it is (bits): 1 written, not only read; 2 touched only after the
//! agent had answered.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{MemoryError, PAGE};

/// More is not worth reading before a launch.
const MAX_ENTRIES: usize = 16_384;
const ENTRY: usize = 24;
const WRITTEN: u64 = 1;
const LATER: u64 = 2;

/// Neighbouring pages with one fate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    pub offset: u64,
    pub length: u64,
    /// Copied, for the guest writes there.
    pub written: bool,
    /// Not needed until the guest has answered: left for the time after.
    pub later: bool,
}

/// The file's bytes. None for a list that is too long to be of use.
pub fn encode(set: &[Touched]) -> Option<Vec<u8>> {
    let kind = |touched: &Touched| (u64::from(touched.written) * WRITTEN) | (u64::from(touched.later) * LATER);
    let bytes = |touched: &Touched| [touched.offset, touched.length, kind(touched)].map(u64::to_le_bytes);
    (set.len() <= MAX_ENTRIES).then(|| set.iter().flat_map(bytes).flatten().collect())
}

/// All entries of `list`, checked to ascend within `length` bytes of memory.
pub(super) fn read(list: &File, length: u64) -> Result<Vec<Touched>, MemoryError> {
    let size = usize::try_from(list.metadata().map_err(MemoryError::ReadWorkingSet)?.len()).map_err(|_| MemoryError::WorkingSet)?;
    if size > MAX_ENTRIES * ENTRY {
        return Err(MemoryError::WorkingSet);
    }
    let mut bytes = vec![0; size];
    list.read_exact_at(&mut bytes, 0).map_err(MemoryError::ReadWorkingSet)?;
    parse(&bytes, length).ok_or(MemoryError::WorkingSet)
}

fn parse(bytes: &[u8], length: u64) -> Option<Vec<Touched>> {
    let (entries, rest) = bytes.as_chunks::<ENTRY>();
    let mut end = 0;
    let touched = entries.iter().map(|entry| {
        let number = |at: usize| entry[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let (offset, own_length, kind) = (number(0)?, number(8)?, number(16)?);
        let whole = own_length > 0 && offset.is_multiple_of(PAGE) && own_length.is_multiple_of(PAGE) && kind <= WRITTEN | LATER;
        let next = offset.checked_add(own_length)?;
        let fits = whole && offset >= end && next <= length;
        end = next;
        fits.then_some(Touched { offset, length: own_length, written: kind & WRITTEN != 0, later: kind & LATER != 0 })
    });
    rest.is_empty().then(|| touched.collect()).flatten()
}

/// For fuzzing.
pub(crate) fn fuzz(bytes: &[u8]) {
    if let Some(set) = parse(bytes, 1 << 20) {
        assert_eq!(encode(&set).as_deref(), Some(bytes));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn touched(page: u64, pages: u64, written: bool, later: bool) -> Touched {
        Touched { offset: page * PAGE, length: pages * PAGE, written, later }
    }

    #[test]
    fn what_was_encoded_is_read() {
        let set = [touched(0, 1, true, false), touched(1, 2, false, false), touched(9, 1, true, true)];
        let bytes = encode(&set).unwrap();
        assert_eq!(parse(&bytes, 10 * PAGE).unwrap(), set);
        assert_eq!(parse(&bytes, 9 * PAGE), None, "beyond memory");
        assert_eq!(parse(&bytes[..bytes.len() - 1], 10 * PAGE), None, "cut off");
    }

    #[test]
    fn lists_that_nobody_writes_are_refused() {
        for bad in [[touched(1, 1, false, false), touched(0, 1, false, false)], [touched(0, 2, false, false), touched(1, 1, true, false)]] {
            assert_eq!(parse(&encode(&bad).unwrap(), 10 * PAGE), None);
        }
        for entry in [[0, 0, 0], [1, PAGE, 0], [0, PAGE - 1, 0], [0, PAGE, 4], [u64::MAX - PAGE + 1, PAGE, 0]] {
            assert_eq!(parse(&entry.map(u64::to_le_bytes).concat(), 10 * PAGE), None, "{entry:?}");
        }
        assert_eq!(encode(&vec![touched(0, 1, false, false); MAX_ENTRIES + 1]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_break_the_parser(bytes: Vec<u8>) {
            fuzz(&bytes);
        }
    }
}
