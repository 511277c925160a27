//! A host that runs out of something: space is looked for before an operation begins, and a shortage is called by its name wherever it is met.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;

use crate::engine::EngineError;
use crate::network::NetworkError;
use crate::{EndCause, HostError, ProcessEnd};

/// Errors are wrapped a few times at most; a cycle must not hang us.
const DEPTH: usize = 16;

/// What a host can be out of, each with the limit that says so.
const DESCRIPTORS: &str = "file descriptors (RLIMIT_NOFILE of the daemon, LimitNOFILE= of its unit)";
const PROCESSES: &str =
    "processes and threads (the pids limit of the daemon's cgroup, TasksMax= of its unit; RLIMIT_NPROC; kernel.pid_max)";
const MEMORY: &str = "memory";
/// What programs print before the error of the system that kept them from working, and libraries when they end the process for it.
const NAMES: [&str; 4] = ["qemu", "(qemu", "emberbox-vmm", "memory allocation of"];
/// Of the C library, and of QEMU's and Rust's own words where memory is meant.
const NO_MEMORY: [&str; 3] = ["Cannot allocate memory", "memory allocation of", "failed to allocate"];
const NO_PROCESSES: &str = "Resource temporarily unavailable";
const NO_SPACE: &str = "No space left on device";
/// A launch takes some twenty for a moment; the rest is for connections of clients to what runs.
const DESCRIPTORS_LEFT: u64 = 64;

/// Below this much free space a failure that does not say why is taken to be the disk's: a guest whose disk could not grow sees an I/O error, a process whose
/// memory's file could not, a signal.
const NEARLY_FULL: u64 = 32 << 20;

/// The space of the file system that holds the host's data.
#[derive(Debug)]
pub(crate) struct Space {
    path: PathBuf,
    /// What operations leave free: for what running guests write meanwhile, and for the daemon's records.
    reserve: u64,
    /// Asked for by operations that go on.
    promised: AtomicU64,
}

/// Space that an operation under way may use.
#[derive(Debug)]
pub(crate) struct Promise<'a> {
    space: &'a Space,
    bytes: u64,
}

impl Space {
    pub(crate) fn new(path: PathBuf, reserve: u64) -> Self {
        Self { path, reserve, promised: AtomicU64::new(0) }
    }

    /// Sets `bytes` aside for as long as the promise is kept. Refused when they, what others were promised and the reserve are more than is free.
    pub(crate) fn promise(&self, bytes: u64) -> Result<Promise<'_>, HostError> {
        let others = self.promised.fetch_add(bytes, Ordering::AcqRel);
        let promise = Promise { space: self, bytes };
        let free = self.free().map_err(HostError::internal("look for space on the disk"))?;
        let wanted = bytes.saturating_add(others).saturating_add(self.reserve);
        if free < wanted {
            tracing::warn!(free, bytes, others, reserve = self.reserve, path = %self.path.display(), "not enough space on the disk");
            return Err(HostError::DiskFull);
        }
        Ok(promise)
    }

    /// The error as it is, unless the disk is as good as full: then that is what happened.
    pub(crate) fn explain(&self, error: HostError) -> HostError {
        match error {
            HostError::Internal { .. }
            | HostError::BuildFailed { .. }
            | HostError::ApplicationExited { .. }
            | HostError::MachineEnded(_)
                if self.nearly_full() =>
            {
                tracing::warn!(error = &error as &dyn Error, path = %self.path.display(), "taken for the consequence of a full disk");
                HostError::DiskFull
            }
            other => other,
        }
    }

    fn nearly_full(&self) -> bool {
        self.free().is_ok_and(|free| free < NEARLY_FULL)
    }

    /// What unprivileged processes may use: virtual machine processes are such.
    fn free(&self) -> io::Result<u64> {
        let found = statvfs(&self.path)?;
        Ok(found.blocks_available().saturating_mul(found.fragment_size()))
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.space.promised.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// What the host has run out of, when that is the cause of an error.
pub(crate) fn shortage(error: &(dyn Error + 'static)) -> Option<HostError> {
    let mut cause = Some(error);
    for _ in 0..DEPTH {
        let found = of_cause(cause?);
        if found.is_some() {
            return found;
        }
        cause = cause.and_then(|error| error.source());
    }
    None
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<HostError> {
    match cause.downcast_ref::<EngineError>() {
        // Both kinds of monitors pass an error of the system on in words.
        Some(EngineError::Refused { message, .. }) => in_words(message),
        Some(EngineError::Ended(end)) => shortage_of(end),
        Some(EngineError::Start(start)) => of_start(start),
        _ => match cause.downcast_ref::<NetworkError>() {
            Some(NetworkError::Tool { source, .. } | NetworkError::Io { source, .. }) => of_start(source),
            _ => cause.downcast_ref::<io::Error>().and_then(of_system),
        },
    }
}

/// What the host had run out of when a process ended: of its last words those of the program itself count, not those of its guest's console.
pub(crate) fn shortage_of(end: &ProcessEnd) -> Option<HostError> {
    match end.cause {
        EndCause::HostMemory => Some(HostError::Exhausted(MEMORY)),
        EndCause::Unknown | EndCause::Code(_) | EndCause::Signal(_) | EndCause::MemoryLimit => {
            let own = end.last_words.lines().filter(|line| NAMES.iter().any(|name| line.starts_with(name)));
            own.filter_map(in_words).next_back()
        }
    }
}

/// A virtual machine that may not have its threads, or its memory, or space for its files.
fn in_words(message: &str) -> Option<HostError> {
    match message {
        _ if message.contains(NO_SPACE) => Some(HostError::DiskFull),
        _ if message.contains(NO_PROCESSES) => Some(HostError::Exhausted(PROCESSES)),
        _ if NO_MEMORY.iter().any(|words| message.contains(words)) => Some(HostError::Exhausted(MEMORY)),
        _ => None,
    }
}

/// Of a process or a thread that could not be started: only making one says "try again" for "no more".
pub(crate) fn of_start(error: &io::Error) -> Option<HostError> {
    match error.kind() {
        io::ErrorKind::WouldBlock => Some(HostError::Exhausted(PROCESSES)),
        _ => of_system(error),
    }
}

/// Whether one more machine leaves descriptors for the requests of what runs: without them nobody could even be told.
pub(crate) fn descriptors_for_a_machine() -> Result<(), HostError> {
    const ATTEMPTED: &str = "look for free file descriptors";
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).map_err(HostError::internal(ATTEMPTED))?;
    let open = open_descriptors().map_err(HostError::internal(ATTEMPTED))?;
    if open + DESCRIPTORS_LEFT > limit {
        tracing::warn!(open, limit, left = DESCRIPTORS_LEFT, "not enough file descriptors for one more machine");
        return Err(HostError::Exhausted(DESCRIPTORS));
    }
    Ok(())
}

/// Whether the daemon may start anything: limits are those of its cgroup, of all above it and of the kernel, so trying is the way to know.
pub(crate) fn processes_for_a_machine() -> Result<(), HostError> {
    const LITTLE: usize = 64 << 10;
    let tried = std::thread::Builder::new().name("room".into()).stack_size(LITTLE).spawn(|| {});
    // It ends by itself: nobody has to wait for it.
    tried.map(drop).map_err(|error| of_start(&error).unwrap_or_else(|| HostError::internal("start a thread")(error)))
}

/// As a number of the directory itself (Linux 6.2): a launch does not cost more for each machine there is. Older kernels have them listed.
fn open_descriptors() -> io::Result<u64> {
    const DIRECTORY: &str = "/proc/self/fd";
    match std::fs::metadata(DIRECTORY)?.len() {
        0 => Ok(std::fs::read_dir(DIRECTORY)?.count() as u64),
        open => Ok(open),
    }
}

fn of_system(error: &io::Error) -> Option<HostError> {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded, _) => Some(HostError::DiskFull),
        (_, Some(libc::EMFILE | libc::ENFILE)) => Some(HostError::Exhausted(DESCRIPTORS)),
        (io::ErrorKind::OutOfMemory, _) => Some(HostError::Exhausted(MEMORY)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_promise_counts_until_it_is_dropped() {
        let space = Space::new(std::env::temp_dir(), 0);
        let free = space.free().unwrap();
        let most = space.promise(free / 10 * 9).unwrap();
        assert!(matches!(space.promise(free / 4), Err(HostError::DiskFull)));
        drop(most);
        assert_eq!(space.promised.load(Ordering::Acquire), 0, "a refused promise is none");
        space.promise(free / 4).unwrap();
        assert!(matches!(Space::new(std::env::temp_dir(), u64::MAX).promise(1), Err(HostError::DiskFull)));
    }

    #[test]
    fn descriptors_are_counted_without_a_list() {
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..300).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let with = open_descriptors().unwrap();
        drop(files);
        // Other tests of this process open and close files meanwhile.
        assert!((before + 250..before + 350).contains(&with), "{before} {with}");
    }

    #[test]
    fn shortages_are_called_by_their_names() {
        let system = |number| io::Error::from_raw_os_error(number);
        let name = |error: HostError| error.to_string();
        assert!(matches!(HostError::internal("write")(system(libc::ENOSPC)), HostError::DiskFull));
        assert!(matches!(HostError::internal("open")(system(libc::EMFILE)), HostError::Exhausted(DESCRIPTORS)));
        assert!(matches!(EngineError::Start(system(libc::EAGAIN)).into(), HostError::Exhausted(PROCESSES)));
        assert!(matches!(NetworkError::Tool { tool: "ip", source: system(libc::EAGAIN) }.into(), HostError::Exhausted(PROCESSES)));
        let ended = |cause, last_words: &str| HostError::from(EngineError::Ended(ProcessEnd { cause, last_words: last_words.into() }));
        let aborted = ended(EndCause::Signal(libc::SIGABRT), "guest\nqemu: qemu_thread_create: Resource temporarily unavailable");
        assert!(matches!(aborted, HostError::Exhausted(PROCESSES)));
        let aborted = ended(EndCause::Signal(libc::SIGABRT), "memory allocation of 12288 bytes failed");
        assert!(matches!(aborted, HostError::Exhausted(MEMORY)));
        assert!(matches!(ended(EndCause::HostMemory, ""), HostError::Exhausted(MEMORY)));
        // What a guest prints, and the limit of one machine, are no shortage of the host.
        for (cause, words) in [(EndCause::Code(0), "sh: Cannot allocate memory"), (EndCause::MemoryLimit, "")] {
            assert!(matches!(ended(cause, words), HostError::MachineEnded(_)), "{words}");
        }
        let refused = |message: &str| HostError::from(EngineError::Refused { command: "restore".into(), message: message.into() });
        assert!(matches!(refused("could not map memory: Cannot allocate memory (os error 12)"), HostError::Exhausted(MEMORY)));
        assert!(matches!(refused("a thread: Resource temporarily unavailable (os error 11)"), HostError::Exhausted(PROCESSES)));
        assert_eq!(name(EngineError::Start(system(libc::ENOMEM)).into()), "the host is out of memory");
        let refused = EngineError::Refused { command: "migrate".into(), message: "write: No space left on device".into() };
        assert!(matches!(HostError::from(refused), HostError::DiskFull));
        assert_eq!(name(HostError::internal("open")(system(libc::EACCES))), "open");
    }
}
