//! Prints such a log, oldest first, and goes on with what is written when asked to follow.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::current;
use super::files::put_aside;

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(300);

/// Lines that `wanted` says yes to.
pub(crate) fn print(directory: &Path, name: &str, follow: bool, wanted: impl Fn(&[u8]) -> bool) -> anyhow::Result<()> {
    let old = put_aside(directory, name)?;
    let mut out = io::stdout().lock();
    let mut line = Vec::new();
    for path in old {
        // One that is deleted while others are read is too old to matter.
        if let Ok(file) = File::open(path) {
            rest(&mut BufReader::new(file), &mut line, &mut out, &wanted)?;
        }
    }
    let path = directory.join(current(name));
    match File::open(&path) {
        Ok(file) => go_on(path, file, follow, &mut out, &wanted),
        Err(_) => Ok(()),
    }
}

/// Prints the whole lines that are left; a line begun stays in `line`.
fn rest(reader: &mut impl BufRead, line: &mut Vec<u8>, out: &mut impl Write, wanted: &impl Fn(&[u8]) -> bool) -> io::Result<()> {
    while reader.read_until(b'\n', line)? > 0 && line.ends_with(b"\n") {
        if wanted(line) {
            out.write_all(line)?;
        }
        line.clear();
    }
    out.flush()
}

/// Prints the rest of `file`; then waits for more, or for the file that takes its place.
fn go_on(path: PathBuf, file: File, follow: bool, out: &mut impl Write, wanted: &impl Fn(&[u8]) -> bool) -> anyhow::Result<()> {
    let mut inode = file.metadata()?.ino();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        rest(&mut reader, &mut line, out, wanted)?;
        if !follow {
            return Ok(());
        }
        std::thread::sleep(POLL);
        if let Ok(current) = File::open(&path)
            && current.metadata()?.ino() != inode
            && reader.fill_buf()?.is_empty()
        {
            inode = current.metadata()?.ino();
            reader = BufReader::new(current);
        }
    }
}
