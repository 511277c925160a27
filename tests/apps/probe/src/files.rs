//! Files on the root disk, under `/data`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::server::Answer;

pub(crate) const DIRECTORY: &str = "/data";

/// Stores a body. Unless asked to, it is not synced: that is the suspension's duty. A synced one replaces the old content at once or not at all.
pub(crate) fn write(name: &str, body: &mut dyn Read, sync: bool) -> Answer {
    let Some(path) = path(name) else { return Answer::failed(400, "a file's name has no slash and no leading dot") };
    let written = fs::create_dir_all(DIRECTORY).and_then(|()| match sync {
        false => File::create(path).and_then(|mut file| io::copy(body, &mut file)),
        true => replace(&path, body),
    });
    match written {
        Ok(bytes) => Answer::json([("name", name.into()), ("bytes", bytes.into())]),
        Err(error) => Answer::failed(500, error),
    }
}

fn replace(path: &Path, body: &mut dyn Read) -> io::Result<u64> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    let bytes = io::copy(body, &mut file)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(DIRECTORY)?.sync_all()?;
    Ok(bytes)
}

pub(crate) fn read(name: &str) -> Answer {
    let Some(path) = path(name) else { return Answer::failed(400, "a file's name has no slash and no leading dot") };
    match fs::read(path) {
        Ok(bytes) => Answer::Bytes(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::failed(404, error),
        Err(error) => Answer::failed(500, error),
    }
}

pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    plain.then(|| Path::new(DIRECTORY).join(name))
}
