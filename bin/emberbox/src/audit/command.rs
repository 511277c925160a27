//! `emberbox audit`: prints the audit log, oldest first, and goes on with what is written when asked to follow.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::writer::{CURRENT, put_aside};
use crate::arguments::Audit;
use crate::serve::AUDIT;

/// How often a followed file is looked at.
const POLL: Duration = Duration::from_millis(300);

pub(crate) fn run(arguments: Audit) -> anyhow::Result<()> {
    let directory = arguments.data.data.join(AUDIT);
    let old =
        put_aside(&directory).with_context(|| format!("no audit log in {}: has a daemon run with this --data?", directory.display()))?;
    let mut out = io::stdout().lock();
    for path in old {
        // One that is deleted while others are read is too old to matter.
        if let Ok(file) = File::open(path) {
            io::copy(&mut BufReader::new(file), &mut out)?;
        }
    }
    match File::open(directory.join(CURRENT)) {
        Ok(file) => go_on(&directory, file, arguments.follow, &mut out),
        Err(_) => Ok(()),
    }
}

/// Prints the rest of `file`; then waits for more, or for the file that takes its place.
fn go_on(directory: &Path, file: File, follow: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let mut inode = file.metadata()?.ino();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            out.write_all(&line)?;
            line.clear();
        }
        out.flush()?;
        if !follow {
            return Ok(());
        }
        std::thread::sleep(POLL);
        if let Ok(current) = File::open(directory.join(CURRENT))
            && current.metadata()?.ino() != inode
            && reader.fill_buf()?.is_empty()
        {
            inode = current.metadata()?.ino();
            reader = BufReader::new(current);
        }
    }
}
