//! A zip writer that lies on demand.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses its part

use std::io::Write;

pub const FILE: u32 = 0o100_644;
pub const DIRECTORY: u32 = 0o040_755;
pub const LINK: u32 = 0o120_777;

/// An entry as it is written, true or not.
#[derive(Debug, Clone)]
pub struct Item {
    pub name: Vec<u8>,
    pub mode: u32,
    pub flags: u16,
    pub method: u16,
    /// As they lie in the archive.
    pub data: Vec<u8>,
    pub bytes: u32,
    pub crc: u32,
    pub local_name: Option<Vec<u8>>,
    /// Of the local header that the index names, instead of this entry's own.
    pub offset: Option<u32>,
    pub compressed: Option<u32>,
    /// In the index alone.
    pub extra: Vec<u8>,
}

pub fn item(name: &str, mode: u32, content: &[u8]) -> Item {
    Item {
        name: name.into(),
        mode,
        flags: 0,
        method: 0,
        data: content.to_vec(),
        bytes: content.len() as u32,
        crc: crc32fast::hash(content),
        local_name: None,
        offset: None,
        compressed: None,
        extra: Vec::new(),
    }
}

pub fn file(name: &str, content: &[u8]) -> Item {
    item(name, FILE, content)
}

pub fn dockerfile() -> Item {
    file("Dockerfile", b"FROM scratch\n")
}

pub fn deflated(name: &str, content: &[u8]) -> Item {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(content).unwrap();
    Item { method: 8, data: encoder.finish().unwrap(), ..item(name, FILE, content) }
}

pub fn zip(items: &[Item]) -> Vec<u8> {
    let (mut out, mut index) = (Vec::new(), Vec::new());
    for item in items {
        let offset = item.offset.unwrap_or(out.len() as u32);
        let compressed = item.compressed.unwrap_or(item.data.len() as u32);
        let name = item.local_name.as_ref().unwrap_or(&item.name);
        out.extend(b"PK\x03\x04");
        let sizes = [item.crc, compressed, item.bytes];
        out.extend(numbers16(&[20, item.flags, item.method, 0, 0]));
        out.extend(sizes.iter().flat_map(|n| n.to_le_bytes()));
        out.extend(numbers16(&[name.len() as u16, 0]));
        out.extend(name);
        out.extend(&item.data);
        index.extend(b"PK\x01\x02");
        index.extend(numbers16(&[3 << 8 | 20, 20, item.flags, item.method, 0, 0]));
        index.extend(sizes.iter().flat_map(|n| n.to_le_bytes()));
        index.extend(numbers16(&[item.name.len() as u16, item.extra.len() as u16, 0, 0, 0]));
        index.extend((item.mode << 16).to_le_bytes());
        index.extend(offset.to_le_bytes());
        index.extend(&item.name);
        index.extend(&item.extra);
    }
    let (offset, bytes) = (out.len() as u32, index.len() as u32);
    out.extend(index);
    out.extend(end(items.len() as u16, bytes, offset));
    out
}

pub fn end(entries: u16, bytes: u32, offset: u32) -> Vec<u8> {
    let mut out = b"PK\x05\x06".to_vec();
    out.extend(numbers16(&[0, 0, entries, entries]));
    out.extend(bytes.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend([0, 0]);
    out
}

fn numbers16(numbers: &[u16]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}
