//! Arming a daemon's failpoints from outside: a file that its environment names, read at start and whenever it changes.
//!
//! What has been armed is written to `<file>.armed`, so that a test knows when it may begin.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Failpoint, arm};

/// Names the file.
pub const VARIABLE: &str = "EMBERBOX_FAILPOINTS";
const POLL: Duration = Duration::from_millis(10);

/// Arms `known` from the file that [`VARIABLE`] names, now and for as long as the process lives; does nothing when it names none.
pub fn from_environment(known: Vec<&'static Failpoint>) -> std::io::Result<()> {
    let Some(path) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(()) };
    tracing::warn!(file = %path.display(), "failpoints are armed from a file: this daemon is under test");
    let mut last = None;
    follow(&known, &path, &mut last);
    std::thread::Builder::new().name("failpoints".into()).spawn(move || {
        loop {
            std::thread::sleep(POLL);
            follow(&known, &path, &mut last);
        }
    })?;
    Ok(())
}

fn follow(known: &[&'static Failpoint], path: &Path, last: &mut Option<String>) {
    // No file is nothing armed.
    let text = std::fs::read_to_string(path).unwrap_or_default();
    if last.as_ref() == Some(&text) {
        return;
    }
    let answer = match arm(known, &text) {
        Ok(()) => text.clone(),
        Err(error) => {
            tracing::error!(%error, "failpoints were not armed");
            format!("error: {error}")
        }
    };
    let mut armed = path.as_os_str().to_owned();
    armed.push(".armed");
    if let Err(error) = std::fs::write(armed, answer) {
        tracing::error!(%error, "what is armed could not be told");
    }
    *last = Some(text);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    mod points {
        crate::declare! {
            POINT = "test.point";
        }
    }

    #[test]
    fn a_file_is_followed_and_acknowledged() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("points");
        let armed = || std::fs::read_to_string(directory.path().join("points.armed")).unwrap();
        let mut last = None;
        follow(points::ALL, &path, &mut last);
        assert_eq!((armed(), points::POINT.is_armed()), (String::new(), false));
        std::fs::write(&path, "test.point=kill").unwrap();
        follow(points::ALL, &path, &mut last);
        assert_eq!((armed(), points::POINT.is_armed()), ("test.point=kill".into(), true));
        std::fs::write(&path, "test.other=kill").unwrap();
        follow(points::ALL, &path, &mut last);
        assert!(armed().starts_with("error: "));
        std::fs::remove_file(&path).unwrap();
        follow(points::ALL, &path, &mut last);
        assert!(!points::POINT.is_armed());
    }
}
