//! How fast the root disk and the network are for an application: measured here, where no proxy of the host is on the way.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant};

use crate::files;
use crate::http::Request;
use crate::json::{Json, object};
use crate::memory::xorshift;
use crate::server::Answer;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const PAGE: u64 = 4096;
/// Around the guest's page cache, so that each access is the device's.
const O_DIRECT: i32 = 0o40_000;
const NETWORK_TIMEOUT: Duration = Duration::from_secs(120);

/// Accesses of a file in blocks, by one thread or several.
struct Access {
    write: bool,
    random: bool,
    block: u64,
    /// The file's length in blocks.
    blocks: u64,
    /// Accesses of each thread.
    each: u64,
    threads: u64,
}

impl Access {
    fn of(request: &Request) -> Option<Self> {
        let block = request.number("block_kib", 1024) * KIB;
        let threads = request.number("threads", 1);
        let blocks = (request.number("mib", 1) * MIB).checked_div(block)?;
        let each = request.number("operations", blocks).checked_div(threads)?;
        let (write, random) = (request.argument("write").is_some(), request.argument("random").is_some());
        (block.is_multiple_of(PAGE) && blocks >= threads && each > 0).then_some(Self { write, random, block, blocks, each, threads })
    }

    /// Accesses the file, with all of it on the disk at the end when it is written.
    fn perform(&self, file: &File) -> io::Result<()> {
        thread::scope(|scope| {
            let started: Vec<_> = (0..self.threads).map(|thread| scope.spawn(move || self.share(file, thread))).collect();
            started.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
        })?;
        if self.write { file.sync_all() } else { Ok(()) }
    }

    fn share(&self, file: &File, thread: u64) -> io::Result<()> {
        let mut space = vec![0; usize::try_from(self.block + PAGE).map_err(io::Error::other)?];
        let buffer = aligned(&mut space);
        let mut word = 0x9e37_79b9_7f4a_7c15 ^ (thread + 1);
        for index in 0..self.each {
            let block = if self.random { xorshift(&mut word) } else { thread * self.each + index } % self.blocks;
            let offset = block * self.block;
            if self.write {
                mark(buffer, offset);
                file.write_all_at(buffer, offset)?;
            } else {
                file.read_exact_at(buffer, offset)?;
                if !is_marked(buffer, offset) {
                    return Err(io::Error::other(format!("what is at {offset} was not written there")));
                }
            }
        }
        Ok(())
    }
}

/// As much of `space` as direct access takes: from a page's start.
fn aligned(space: &mut [u8]) -> &mut [u8] {
    let page = PAGE as usize;
    let start = space.as_ptr().align_offset(page);
    let end = space.len() - page + start;
    &mut space[start..end]
}

/// Every page of a file begins with its own offset, so that a page in the wrong place shows.
fn mark(block: &mut [u8], offset: u64) {
    for (index, page) in (0..).zip(block.chunks_exact_mut(PAGE as usize)) {
        page[..8].copy_from_slice(&(offset + index * PAGE).to_le_bytes());
    }
}

fn is_marked(block: &[u8], offset: u64) -> bool {
    (0..).zip(block.chunks_exact(PAGE as usize)).all(|(index, page)| page[..8] == (offset + index * PAGE).to_le_bytes())
}

/// Reads or writes a file on the root disk around the page cache.
pub(crate) fn disk(request: &Request) -> Answer {
    let Some(path) = request.argument("name").and_then(files::path) else {
        return Answer::failed(400, "a file's name has no slash and no leading dot");
    };
    let Some(access) = Access::of(request) else { return Answer::failed(400, "blocks are whole pages, and at least one for each thread") };
    let opened = fs::create_dir_all(files::DIRECTORY).and_then(|()| {
        OpenOptions::new().read(true).write(access.write).create(access.write).truncate(false).custom_flags(O_DIRECT).open(path)
    });
    let accesses = access.each * access.threads;
    match opened.and_then(|file| timed(|| access.perform(&file))) {
        Ok(((), took)) => Answer::Json(200, measured(accesses, accesses * access.block, took)),
        Err(error) => Answer::failed(500, error),
    }
}

/// Moves bytes to a server that reads until they end and then closes, or from one that sends without end.
pub(crate) fn transfer(request: &Request) -> Answer {
    let (Some(host), Ok(port)) = (request.argument("host"), u16::try_from(request.number("port", 0))) else {
        return Answer::failed(400, "host and port are needed");
    };
    let length = request.number("mib", 1) * MIB;
    let outwards = request.argument("out").is_some();
    let connected = TcpStream::connect((host, port)).and_then(|connection| {
        connection.set_read_timeout(Some(NETWORK_TIMEOUT))?;
        connection.set_write_timeout(Some(NETWORK_TIMEOUT))?;
        Ok(connection)
    });
    match connected.and_then(|connection| timed(|| if outwards { send(&connection, length) } else { receive(&connection, length) })) {
        Ok((operations, took)) => Answer::Json(200, measured(operations, length, took)),
        Err(error) => Answer::failed(500, error),
    }
}

fn send(mut connection: &TcpStream, length: u64) -> io::Result<u64> {
    let buffer = vec![0x5a; MIB as usize];
    for _ in 0..length / MIB {
        connection.write_all(&buffer)?;
    }
    connection.shutdown(std::net::Shutdown::Write)?;
    // It has come when the other end says so.
    match connection.read(&mut [0])? {
        0 => Ok(length / MIB),
        _ => Err(io::Error::other("the server is not one that only reads")),
    }
}

fn receive(mut connection: &TcpStream, length: u64) -> io::Result<u64> {
    let mut buffer = vec![0; MIB as usize];
    let (mut left, mut reads) = (length, 0);
    while left > 0 {
        let count = connection.read(&mut buffer)? as u64;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= count.min(left);
        reads += 1;
    }
    Ok(reads)
}

fn timed<T>(work: impl FnOnce() -> io::Result<T>) -> io::Result<(T, Duration)> {
    let began = Instant::now();
    let result = work()?;
    Ok((result, began.elapsed()))
}

fn measured(operations: u64, bytes: u64, took: Duration) -> Json {
    object([("operations", operations.into()), ("bytes", bytes.into()), ("seconds", Json::Float(took.as_secs_f64()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_at_a_page_whatever_they_are_cut_from() {
        for length in [PAGE, 4 * PAGE, MIB] {
            let mut space = vec![0; (length + PAGE) as usize];
            let buffer = aligned(&mut space);
            assert_eq!(buffer.len() as u64, length);
            assert_eq!(buffer.as_ptr() as u64 % PAGE, 0);
        }
    }

    #[test]
    fn a_page_in_the_wrong_place_shows() {
        let mut block = vec![0; 3 * PAGE as usize];
        mark(&mut block, 8 * PAGE);
        assert!(is_marked(&block, 8 * PAGE));
        assert!(!is_marked(&block, 9 * PAGE));
        block.copy_within(..PAGE as usize, 2 * PAGE as usize);
        assert!(!is_marked(&block, 8 * PAGE));
    }
}
