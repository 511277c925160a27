//! The index of a zip (APPNOTE.TXT 4.3): end record, zip64 end record, central directory, and the local header of every entry.
//!
//! Owns the format alone: names are bytes here. Whatever could be read in two ways is refused: a comment that does not end with the file, an index that does not end
//! where the end record begins, a count that differs, a local header that contradicts the index, entries that overlap.

use std::io::{BufReader, Read, Seek, SeekFrom};

use super::error::ArchiveError;
use super::limits::Limits;

const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";
const END_BYTES: u64 = 22;
const COMMENT_MAX_BYTES: u64 = 0xffff;
const END64_SIGNATURE: [u8; 4] = *b"PK\x06\x06";
const END64_BYTES: u64 = 56;
const LOCATOR_SIGNATURE: [u8; 4] = *b"PK\x06\x07";
const LOCATOR_BYTES: u64 = 20;
const ENTRY_SIGNATURE: [u8; 4] = *b"PK\x01\x02";
const ENTRY_BYTES: usize = 46;
const LOCAL_SIGNATURE: [u8; 4] = *b"PK\x03\x04";
const LOCAL_BYTES: usize = 30;
/// "See the zip64 field instead".
const IN_ZIP64_16: u16 = u16::MAX;
const IN_ZIP64_32: u32 = u32::MAX;
const ZIP64_FIELD: u16 = 1;
/// Encrypted; patched data; strong encryption; encrypted index.
const FLAG_ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const FLAG_PATCHED: u16 = 1 << 5;
/// Sizes and checksum follow the data and are zero in the local header.
const FLAG_SIZES_FOLLOW: u16 = 1 << 3;
const METHOD_AES: u16 = 99;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Stored,
    Deflated,
}

/// One entry, its place in the file checked.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) method: Method,
    pub(super) crc: u32,
    pub(super) compressed_bytes: u64,
    /// What the archive promises.
    pub(super) bytes: u64,
    /// `st_mode` where the archive was made on Unix.
    pub(super) unix_mode: Option<u32>,
    pub(super) data_offset: u64,
    header_offset: u64,
    flags: u16,
    method_number: u16,
}

/// Where the central directory is and what it should hold.
struct Directory {
    offset: u64,
    bytes: u64,
    entries: u64,
}

pub(super) fn read<R: Read + Seek>(archive: &mut R, limits: &Limits) -> Result<Vec<Entry>, ArchiveError> {
    let length = archive.seek(SeekFrom::End(0)).map_err(ArchiveError::reading("the file"))?;
    let directory = find_directory(archive, length)?;
    if directory.entries > limits.entries {
        return Err(ArchiveError::Limit(format!("the archive has {} entries; the limit is {}", directory.entries, limits.entries)));
    }
    if directory.bytes > limits.index_bytes {
        return Err(ArchiveError::Limit(format!("the archive's index is larger than {} bytes", limits.index_bytes)));
    }
    let mut entries = read_entries(archive, &directory)?;
    for entry in &mut entries {
        locate_data(archive, entry)?;
    }
    refuse_overlaps(&entries, &directory)?;
    Ok(entries)
}

fn find_directory<R: Read + Seek>(archive: &mut R, length: u64) -> Result<Directory, ArchiveError> {
    if length < END_BYTES {
        return Err(ArchiveError::NotAZip(if length == 0 { "it is empty" } else { "it is too short" }));
    }
    let tail_bytes = length.min(END_BYTES + COMMENT_MAX_BYTES);
    let tail = read_at(archive, length - tail_bytes, tail_bytes as usize, "the end record")?;
    let at = find_end(&tail).ok_or(ArchiveError::NotAZip("it has no end record"))?;
    let end_offset = length - (tail.len() - at) as u64;
    let mut end = Fields(&tail[at + 4..]);
    let (disk, first_disk, here, entries) = (end.u16()?, end.u16()?, end.u16()?, end.u16()?);
    let (bytes, offset) = (end.u32()?, end.u32()?);
    let zip64 = [disk, first_disk, here, entries].contains(&IN_ZIP64_16) || bytes == IN_ZIP64_32 || offset == IN_ZIP64_32;
    if zip64 && let Some(locator_offset) = end_offset.checked_sub(LOCATOR_BYTES) {
        let locator = read_at(archive, locator_offset, LOCATOR_BYTES as usize, "the zip64 locator")?;
        if locator.starts_with(&LOCATOR_SIGNATURE) {
            return zip64_directory(archive, &locator, locator_offset);
        }
    }
    if (disk, first_disk) != (0, 0) || here != entries {
        return Err(ArchiveError::damaged("it is one part of several"));
    }
    ends_at(Directory { offset: offset.into(), bytes: bytes.into(), entries: entries.into() }, end_offset)
}

/// The end record whose comment ends with the file; the last one, should the comment look like one too.
fn find_end(tail: &[u8]) -> Option<usize> {
    let last = tail.len() - END_BYTES as usize;
    (0..=last).rev().find(|&at| {
        let comment_bytes = usize::from(u16::from_le_bytes([tail[at + 20], tail[at + 21]]));
        tail[at..].starts_with(&END_SIGNATURE) && at + END_BYTES as usize + comment_bytes == tail.len()
    })
}

fn zip64_directory<R: Read + Seek>(archive: &mut R, locator: &[u8], locator_offset: u64) -> Result<Directory, ArchiveError> {
    let mut fields = Fields(&locator[4..]);
    let (disk, end_offset, disks) = (fields.u32()?, fields.u64()?, fields.u32()?);
    let fits = end_offset.checked_add(END64_BYTES).is_some_and(|end| end == locator_offset);
    if disk != 0 || disks > 1 || !fits {
        return Err(ArchiveError::damaged("its zip64 end record is not where it should be"));
    }
    let end = read_at(archive, end_offset, END64_BYTES as usize, "the zip64 end record")?;
    if !end.starts_with(&END64_SIGNATURE) {
        return Err(ArchiveError::damaged("its zip64 end record is not where it should be"));
    }
    let mut fields = Fields(&end[4..]);
    let (rest_bytes, _versions) = (fields.u64()?, fields.u32()?);
    let (disk, first_disk, here, entries) = (fields.u32()?, fields.u32()?, fields.u64()?, fields.u64()?);
    let (bytes, offset) = (fields.u64()?, fields.u64()?);
    if rest_bytes != END64_BYTES - 12 || (disk, first_disk) != (0, 0) || here != entries {
        return Err(ArchiveError::damaged("its zip64 end record makes no sense"));
    }
    ends_at(Directory { offset, bytes, entries }, end_offset)
}

/// The index must reach exactly to the record that describes it.
fn ends_at(directory: Directory, end_offset: u64) -> Result<Directory, ArchiveError> {
    match directory.offset.checked_add(directory.bytes) {
        Some(end) if end == end_offset => Ok(directory),
        _ => Err(ArchiveError::damaged("its index is not where the end record says")),
    }
}

fn read_entries<R: Read + Seek>(archive: &mut R, directory: &Directory) -> Result<Vec<Entry>, ArchiveError> {
    archive.seek(SeekFrom::Start(directory.offset)).map_err(ArchiveError::reading("the index"))?;
    let mut index = BufReader::new(archive.take(directory.bytes));
    let mut entries = Vec::new();
    for _ in 0..directory.entries {
        entries.push(read_entry(&mut index)?);
    }
    match index.read(&mut [0]).map_err(ArchiveError::reading("the index"))? {
        0 => Ok(entries),
        _ => Err(ArchiveError::damaged("its index holds more entries than the end record says")),
    }
}

fn read_entry(index: &mut impl Read) -> Result<Entry, ArchiveError> {
    let fixed = take(index, ENTRY_BYTES, "the index")?;
    if !fixed.starts_with(&ENTRY_SIGNATURE) {
        return Err(ArchiveError::damaged("its index holds something that is not an entry"));
    }
    let mut fields = Fields(&fixed[4..]);
    let (made_by, _needs, flags, method_number, _when) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u16()?, fields.u32()?);
    let (crc, compressed, plain) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (name_bytes, extra_bytes, comment_bytes) = (fields.u16()?, fields.u16()?, fields.u16()?);
    let (disk, _internal, attributes, offset) = (fields.u16()?, fields.u16()?, fields.u32()?, fields.u32()?);
    let name = take(index, name_bytes.into(), "a name")?;
    let extra = take(index, extra_bytes.into(), "an extra field")?;
    take(index, comment_bytes.into(), "a comment")?;
    let mut zip64 = Zip64 { fields: zip64_field(&extra)? };
    let (bytes, compressed_bytes, header_offset) = (zip64.or(plain)?, zip64.or(compressed)?, zip64.or(offset)?);
    let shown = String::from_utf8_lossy(&name);
    if disk != 0 && disk != IN_ZIP64_16 {
        return Err(ArchiveError::damaged("it is one part of several"));
    }
    let method = method(&shown, flags, method_number)?;
    if method == Method::Stored && bytes != compressed_bytes {
        return Err(ArchiveError::entry_damaged(&shown, "it is stored as it is, and has two sizes"));
    }
    // The upper byte names the system whose attributes these are: 3 is Unix, 19 macOS.
    let unix_mode = matches!(made_by >> 8, 3 | 19).then_some(attributes >> 16);
    Ok(Entry { name, method, crc, compressed_bytes, bytes, unix_mode, data_offset: 0, header_offset, flags, method_number })
}

fn method(name: &str, flags: u16, number: u16) -> Result<Method, ArchiveError> {
    if flags & FLAG_ENCRYPTED != 0 || number == METHOD_AES {
        return Err(ArchiveError::refused(name, "it is encrypted"));
    }
    let other = match number {
        _ if flags & FLAG_PATCHED != 0 => "patched data",
        0 => return Ok(Method::Stored),
        8 => return Ok(Method::Deflated),
        9 => "deflate64",
        12 => "bzip2",
        14 => "lzma",
        93 => "zstd",
        95 => "xz",
        _ => "unknown",
    };
    Err(ArchiveError::refused(name, format!("its compression ({other}, method {number}) is not supported; use deflate")))
}

/// Reads the local header and requires it to describe the same entry.
fn locate_data<R: Read + Seek>(archive: &mut R, entry: &mut Entry) -> Result<(), ArchiveError> {
    let shown = String::from_utf8_lossy(&entry.name).into_owned();
    let contradiction = |what: &str| ArchiveError::entry_damaged(&shown, format!("its local header and the index differ in {what}"));
    let fixed = read_at(archive, entry.header_offset, LOCAL_BYTES, "a local header")?;
    if !fixed.starts_with(&LOCAL_SIGNATURE) {
        return Err(contradiction("place"));
    }
    let mut fields = Fields(&fixed[4..]);
    let (_needs, flags, method, _when) = (fields.u16()?, fields.u16()?, fields.u16()?, fields.u32()?);
    let (crc, compressed, plain) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (name_bytes, extra_bytes) = (fields.u16()?, fields.u16()?);
    if method != entry.method_number || (flags ^ entry.flags) & FLAG_ENCRYPTED != 0 {
        return Err(contradiction("method"));
    }
    if take(archive, name_bytes.into(), "a local header")? != entry.name {
        return Err(contradiction("name"));
    }
    let extra = take(archive, extra_bytes.into(), "a local header")?;
    if flags & FLAG_SIZES_FOLLOW == 0 {
        let mut zip64 = Zip64 { fields: zip64_field(&extra)? };
        if (zip64.or(plain)?, zip64.or(compressed)?, crc) != (entry.bytes, entry.compressed_bytes, entry.crc) {
            return Err(contradiction("size or checksum"));
        }
    }
    entry.data_offset = entry.header_offset + LOCAL_BYTES as u64 + u64::from(name_bytes) + u64::from(extra_bytes);
    Ok(())
}

/// No byte belongs to two entries, or to an entry and the index: the trick of bombs that do not need recursion.
fn refuse_overlaps(entries: &[Entry], directory: &Directory) -> Result<(), ArchiveError> {
    let mut places: Vec<&Entry> = entries.iter().collect();
    places.sort_by_key(|entry| entry.header_offset);
    let starts = places.iter().skip(1).map(|entry| entry.header_offset).chain([directory.offset]);
    for (entry, next) in places.iter().zip(starts) {
        if entry.data_offset.checked_add(entry.compressed_bytes).is_none_or(|end| end > next) {
            return Err(ArchiveError::entry_damaged(&String::from_utf8_lossy(&entry.name), "it overlaps what follows it"));
        }
    }
    Ok(())
}

/// The content of the zip64 extra field, empty when there is none.
fn zip64_field(extra: &[u8]) -> Result<Fields<'_>, ArchiveError> {
    let mut fields = Fields(extra);
    // Fewer than four bytes at the end are padding (alignment tools leave it).
    while fields.0.len() >= 4 {
        let (kind, bytes) = (fields.u16()?, fields.u16()?);
        let content = fields.bytes(bytes.into())?;
        if kind == ZIP64_FIELD {
            return Ok(Fields(content));
        }
    }
    Ok(Fields(&[]))
}

/// Values that did not fit their 32 bits, in the order in which they are asked for.
struct Zip64<'a> {
    fields: Fields<'a>,
}

impl Zip64<'_> {
    fn or(&mut self, value: u32) -> Result<u64, ArchiveError> {
        if value == IN_ZIP64_32 { self.fields.u64() } else { Ok(value.into()) }
    }
}

/// Little-endian numbers one after another.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes(&mut self, count: usize) -> Result<&'a [u8], ArchiveError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| ArchiveError::damaged("a record of it is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        self.bytes(N)?.try_into().map_err(|_| ArchiveError::damaged("a record of it is too short"))
    }

    fn u16(&mut self) -> Result<u16, ArchiveError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, ArchiveError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, ArchiveError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

/// `count` is a constant or came from 16 bits.
fn take(from: &mut impl Read, count: usize, what: &'static str) -> Result<Vec<u8>, ArchiveError> {
    let mut bytes = vec![0; count];
    from.read_exact(&mut bytes).map_err(ArchiveError::reading(what))?;
    Ok(bytes)
}

fn read_at<R: Read + Seek>(archive: &mut R, offset: u64, count: usize, what: &'static str) -> Result<Vec<u8>, ArchiveError> {
    // Beyond i64 no file has a byte, and lseek refuses it in other words.
    if offset > i64::MAX as u64 {
        return Err(ArchiveError::damaged(format!("it ends within {what}")));
    }
    archive.seek(SeekFrom::Start(offset)).map_err(ArchiveError::reading(what))?;
    take(archive, count, what)
}
