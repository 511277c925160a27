//! Failures in the words their readers get: a documented reason code where there is one, AWS's own sentences for hooks, then what happened.
//!
//! Must never show what is for the operator alone: paths of the host and causes of internal faults go to the log.

use std::error::Error;
use std::io;
use std::time::Duration;

use emberbox_agent_protocol::HookOutcome;
use emberbox_control::reason::{hook_failure, iso8601};
use emberbox_failpoints::Injected;
use emberbox_host::{HostError, last_bytes, printable, with_causes};

use crate::artifact::{ArchiveError, S3Location};
use crate::source::FetchError;

/// Of a build's or an application's last lines; the log has all of them.
const TAIL_BYTES: usize = 2048;
/// Of a hook's answer.
const BODY_BYTES: usize = 512;
/// What a full disk looks like in the output of a build: to its programs, and to mke2fs when the result is larger than the image's disk.
const NO_SPACE: [&str; 2] = ["no space left on device", "could not allocate block in ext2 filesystem"];

pub(crate) fn fetch_failed(location: &S3Location, limit: u64, error: FetchError) -> String {
    match error {
        FetchError::NoSuchBucket => format!("S3_NO_SUCH_BUCKET: The bucket {} does not exist.", location.bucket),
        FetchError::NoSuchKey => format!("S3_NO_SUCH_KEY: There is no object {location}."),
        FetchError::AccessDenied(why) => format!("S3_ACCESS_DENIED: Access to {location} is denied. {why}."),
        FetchError::TooLarge => format!("S3_INVALID_OBJECT: The object {location} is larger than {limit} bytes."),
        FetchError::InvalidName => format!("S3_INVALID_OBJECT: {location} is not a valid name of an object."),
        FetchError::Io(error) => io_failed("copy the artifact", &error),
    }
}

pub(crate) fn archive_refused(error: &ArchiveError) -> String {
    match error {
        ArchiveError::NoDockerfile { .. } => format!("ARCHIVE_DOCKERFILE_NOT_FOUND: {error}."),
        ArchiveError::Io { attempted, source } => io_failed(attempted, source),
        ArchiveError::Abandoned => internal("unpack the artifact", error),
        _ => format!("ARCHIVE_INVALID: {error}."),
    }
}

pub(crate) fn io_failed(attempted: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => disk_full(),
        _ => internal(attempted, error),
    }
}

pub(crate) fn host_failed(error: &HostError) -> String {
    match error {
        HostError::BuildFailed { step, tail } => build_failed(step.as_deref(), tail),
        HostError::BuildTimedOut { limit } => {
            format!("CONTAINER_BUILD_FAILED: The container build timed out after {}.", iso8601(*limit))
        }
        HostError::ApplicationNotStarted { reason } => {
            format!("The application could not be started: {}.", last_bytes(reason, TAIL_BYTES).trim_end_matches('.'))
        }
        HostError::ApplicationExited { code, tail } => application_exited(*code, tail),
        HostError::Hook { hook, outcome, timeout } => hook_ended(hook, outcome, *timeout),
        HostError::DiskFull => disk_full(),
        // As control says it of a launch.
        HostError::Exhausted(what) => format!("HOST_EXHAUSTED: The image could not be built: the host is out of {what}."),
        HostError::MachineEnded(end) => format!("INTERNAL_PLATFORM_ERROR: The build was cut off: {end}"),
        HostError::NoSuchMachine(_)
        | HostError::MachineLost { .. }
        | HostError::NoSuchImage(_)
        | HostError::SnapshotRefused(_)
        | HostError::SnapshotDamaged(_)
        | HostError::ImageInUse { .. }
        | HostError::Internal { .. } => internal("build the image", error),
    }
}

fn build_failed(step: Option<&str>, tail: &[String]) -> String {
    let full = tail.iter().any(|line| NO_SPACE.iter().any(|words| line.to_ascii_lowercase().contains(words)));
    let mut reason = match full {
        true => "DISK_STORAGE_FULL: The container build ran out of disk space".to_owned(),
        false => "CONTAINER_BUILD_FAILED: The container build failed".to_owned(),
    };
    if let Some(step) = step {
        reason.push_str(" at: ");
        reason.push_str(&first_bytes(step, BODY_BYTES));
    }
    with_tail(reason, tail)
}

fn application_exited(code: i32, tail: &[String]) -> String {
    with_tail(format!("The application exited with code {code} before the snapshot could be taken."), tail)
}

/// An application that ended is told as such, whatever hook was waiting for it.
fn hook_ended(hook: &str, outcome: &HookOutcome, timeout: Duration) -> String {
    match outcome {
        HookOutcome::ApplicationExited { code } => application_exited(*code, &[]),
        HookOutcome::Answered { .. } | HookOutcome::TimedOut | HookOutcome::Unreachable { .. } => hook_failure(hook, outcome, timeout),
    }
}

fn disk_full() -> String {
    "DISK_STORAGE_FULL: There is not enough space on the host's disk.".to_owned()
}

/// The one place where a cause is logged instead of shown.
pub(crate) fn internal(attempted: &str, error: &(dyn Error + 'static)) -> String {
    tracing::error!(attempted, error = with_causes(error), "an image build failed by a fault of this host");
    format!("INTERNAL_PLATFORM_ERROR: The host could not {attempted}; its log says why.")
}

/// As control says it of what it calls.
pub(crate) fn panicked() -> String {
    "INTERNAL_PLATFORM_ERROR: the build ended by a fault of Emberbox".to_owned()
}

pub(crate) fn injected(injected: Injected) -> String {
    internal("take a step", &injected)
}

fn with_tail(mut reason: String, tail: &[String]) -> String {
    let lines: Vec<String> = tail.iter().map(|line| printable(line)).filter(|line| !line.trim().is_empty()).collect();
    if !lines.is_empty() {
        reason.push_str("\nLast output:\n");
        reason.push_str(&last_bytes(&lines.join("\n"), TAIL_BYTES));
    }
    reason
}

fn first_bytes(text: &str, limit: usize) -> String {
    let text = printable(text);
    match text.trim() {
        short if short.len() <= limit => short.to_owned(),
        long => {
            let end = (0..=limit).rev().find(|&at| long.is_char_boundary(at)).unwrap_or(0);
            format!("{}…", &long[..end])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use emberbox_host::{EndCause, ProcessEnd};

    #[test]
    fn tails_are_bounded_at_whole_characters_and_steer_no_terminal() {
        let tail = vec!["é".repeat(5000), "\u{1b}[31mlast\r".to_owned()];
        let reason = build_failed(Some("RUN false"), &tail);
        assert!(reason.starts_with("CONTAINER_BUILD_FAILED: The container build failed at: RUN false\nLast output:\n…é"));
        assert!(reason.ends_with("[31mlast"));
        assert!(reason.len() < TAIL_BYTES + 120);
    }

    #[test]
    fn what_the_host_is_short_of_and_how_a_builder_ended_are_said() {
        let short = host_failed(&HostError::Exhausted("file descriptors"));
        assert_eq!(short, "HOST_EXHAUSTED: The image could not be built: the host is out of file descriptors.");
        let end = ProcessEnd { cause: EndCause::MemoryLimit, last_words: "\u{1b}[2Jwords".into() };
        let ended = host_failed(&HostError::MachineEnded(end));
        assert!(ended.starts_with(
            "INTERNAL_PLATFORM_ERROR: The build was cut off: its virtual machine process was ended by the host's limit of memory"
        ));
        assert!(ended.ends_with("\nLast output:\n[2Jwords"));
    }

    #[test]
    fn a_build_that_fills_its_disk_is_told_so() {
        let tail = vec!["write error: No space left on device".to_owned()];
        assert!(build_failed(None, &tail).starts_with("DISK_STORAGE_FULL: "));
    }
}
