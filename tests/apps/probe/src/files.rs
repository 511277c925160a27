//! Files on the root disk, under `/data`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::server::Answer;

const DIRECTORY: &str = "/data";

/// Stores a body. Not synced: that is the suspension's duty.
pub(crate) fn write(name: &str, body: &mut dyn Read) -> Answer {
    let Some(path) = path(name) else { return Answer::failed(400, "a file's name has no slash and no leading dot") };
    let written = fs::create_dir_all(DIRECTORY).and_then(|()| File::create(path)).and_then(|mut file| io::copy(body, &mut file));
    match written {
        Ok(bytes) => Answer::json([("name", name.into()), ("bytes", bytes.into())]),
        Err(error) => Answer::failed(500, error),
    }
}

pub(crate) fn read(name: &str) -> Answer {
    let Some(path) = path(name) else { return Answer::failed(400, "a file's name has no slash and no leading dot") };
    match fs::read(path) {
        Ok(bytes) => Answer::Bytes(bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::failed(404, error),
        Err(error) => Answer::failed(500, error),
    }
}

fn path(name: &str) -> Option<PathBuf> {
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains('/');
    plain.then(|| Path::new(DIRECTORY).join(name))
}
