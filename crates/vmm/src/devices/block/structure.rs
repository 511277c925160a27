//! What must hold of a qcow2 file before it is written: its reference counts are there for every cluster it has (qcow2 specification, "Refcounts"). `imago`
//! takes a file without them for one that grows, and allocates the counts of the counts without end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const HEADER_BYTES: usize = 104;
/// 512 bytes to 2 MiB, as the format has it.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
/// `refcount_order`: at most 64 bits a count. Version 2 has no such field and 16 bits.
const MAX_COUNT_ORDER: u32 = 6;
/// More than any disk of a MicroVM needs.
const MAX_TABLE_BYTES: u64 = 8 << 20;

/// An error says what is damaged.
pub(super) fn check(file: &File) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0).map_err(|_| damaged("is too short"))?;
    let (version, bits) = (word(&header[4..8]), word(&header[20..24]));
    let order = if version == 2 { 4 } else { word(&header[96..100]) };
    if !CLUSTER_BITS.contains(&bits) || order > MAX_COUNT_ORDER {
        return Err(damaged("has a header that is none"));
    }
    let (cluster, length) = (1u64 << bits, file.metadata()?.len());
    let clusters = length.div_ceil(cluster);
    let blocks = clusters.div_ceil((cluster * 8) >> order);
    let (table, table_bytes) = (long(&header[48..56]), u64::from(word(&header[56..60])) * cluster);
    let within = |offset: u64| offset != 0 && offset.is_multiple_of(cluster) && offset < length;
    if !within(table) || table_bytes < blocks * 8 || blocks * 8 > MAX_TABLE_BYTES {
        return Err(damaged("has no table of reference counts"));
    }
    let mut entries = vec![0; usize::try_from(blocks * 8).map_err(io::Error::other)?];
    file.read_exact_at(&mut entries, table).map_err(|_| damaged("ends within its table of reference counts"))?;
    match entries.as_chunks::<8>().0.iter().all(|entry| within(u64::from_be_bytes(*entry))) {
        true => Ok(()),
        false => Err(damaged("lacks reference counts")),
    }
}

fn damaged(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the qcow2 file {how}"))
}

fn word(bytes: &[u8]) -> u32 {
    long(bytes) as u32
}

fn long(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}
