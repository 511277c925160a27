//! `memory.runs`: which parts of a suspended machine's memory file hold pages. Little-endian u64 pairs, offset and length, ascending.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{MemoryError, PAGE};

/// The host writes at most this many; each costs a mapping and the kernel limits those.
const MAX_RUNS: usize = 16_384;
const PAIR: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub offset: u64,
    pub length: u64,
}

/// All runs of `list`, checked to ascend within `length` bytes of memory.
pub(super) fn read(list: &File, length: u64) -> Result<Vec<Run>, MemoryError> {
    let size = usize::try_from(list.metadata().map_err(MemoryError::ReadRuns)?.len()).map_err(|_| MemoryError::Runs)?;
    if size > MAX_RUNS * PAIR || !size.is_multiple_of(PAIR) {
        return Err(MemoryError::Runs);
    }
    let mut bytes = vec![0; size];
    list.read_exact_at(&mut bytes, 0).map_err(MemoryError::ReadRuns)?;
    parse(&bytes, length).ok_or(MemoryError::Runs)
}

fn parse(bytes: &[u8], length: u64) -> Option<Vec<Run>> {
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    let mut end = 0;
    bytes
        .chunks_exact(PAIR)
        .map(|pair| {
            let run = Run { offset: number(&pair[..8])?, length: number(&pair[8..])? };
            let whole = run.length > 0 && run.offset.is_multiple_of(PAGE) && run.length.is_multiple_of(PAGE);
            let next = run.offset.checked_add(run.length)?;
            let fits = whole && run.offset >= end && next <= length;
            end = next;
            fits.then_some(run)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(runs: &[(u64, u64)]) -> Vec<u8> {
        runs.iter().flat_map(|(offset, length)| [offset.to_le_bytes(), length.to_le_bytes()]).flatten().collect()
    }

    #[test]
    fn only_ascending_whole_pages_within_memory_are_taken() {
        let good = parse(&bytes(&[(0, PAGE), (PAGE, 2 * PAGE)]), 3 * PAGE);
        assert_eq!(good, Some(vec![Run { offset: 0, length: PAGE }, Run { offset: PAGE, length: 2 * PAGE }]));
        for bad in [[(0, 0)], [(1, PAGE)], [(0, PAGE + 1)], [(0, 4 * PAGE)], [(u64::MAX - PAGE + 1, PAGE)]] {
            assert_eq!(parse(&bytes(&bad), 3 * PAGE), None, "{bad:?}");
        }
        assert_eq!(parse(&bytes(&[(PAGE, PAGE), (0, PAGE)]), 3 * PAGE), None);
        assert_eq!(parse(&bytes(&[(0, 2 * PAGE), (PAGE, PAGE)]), 3 * PAGE), None);
    }
}
