//! Cells made ahead of their use, because making one takes several processes' time and launching should not wait for it.

use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::addresses::{LINKS, SLICES, Slice};
use super::cell::{Cell, remove_link};
use super::soon::soon;
use super::{NetworkConfig, NetworkError, dns, rules, tools};
use crate::sys::namespace::NetworkNamespace;

/// Links that the kernel may refuse before making a cell is given up.
const REFUSALS: u32 = 3;
/// Making a cell takes several processes, and whatever is made ready with it: while the pool is not half empty, the launch that has just taken one goes first.
const YIELDS_FOR: Duration = Duration::from_millis(300);
/// A burst of launches goes first too, for so long, where there is no CPU for both.
const YIELDS_AT_MOST: Duration = Duration::from_secs(2);
const YIELDS_AGAIN: Duration = Duration::from_millis(50);
const LOCKS: &str = "/run/emberbox";
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Gives cells out and fills itself up again in the background. [`CellPool::close`] takes the unused ones away; so does dropping it, as well as that goes
/// while the runtime ends.
#[derive(Debug)]
pub(crate) struct CellPool {
    factory: Arc<Factory>,
    ready: Arc<Mutex<VecDeque<Cell>>>,
    taken: Arc<Notify>,
    refill: JoinHandle<()>,
}

/// Called with the user number of a cell's machine.
pub(crate) type ReadyHook = Arc<dyn Fn(u32) + Send + Sync>;

#[derive(Debug)]
struct Factory {
    slice: Slice,
    allow: Vec<String>,
    resolvers: Vec<IpAddr>,
    next: AtomicU32,
    /// Interfaces that a former daemon left, until it is known which of them are machines' that go on. None of them is made anew meanwhile.
    left: Mutex<HashSet<String>>,
    /// Nothing is made ahead any more. Held for reading while something is.
    closed: RwLock<bool>,
    /// Links of ended machines on their way out.
    leaving: TaskTracker,
    _lock: Flock<File>,
    runtime: tokio::runtime::Handle,
}

impl CellPool {
    /// Prepares the host (rules, forwarding) and starts filling. `record` is the file that remembers which addresses this daemon uses;
    /// `tell` is told the user number of each cell that is put into the pool.
    pub(crate) async fn start(config: &NetworkConfig, record: &Path, tell: ReadyHook) -> Result<Self, NetworkError> {
        let record = record.to_path_buf();
        let claimed = tokio::task::spawn_blocking(move || claim_slice(&record)).await;
        let (slice, lock) =
            claimed.map_err(|error| NetworkError::Io { attempted: "claim addresses for cells", source: error.into() })??;
        let (host_slice, allow) = (slice.clone(), config.allow.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            let apart = if forwarding_is_ours()? { physical_interfaces() } else { Vec::new() };
            tools::nft(None, &rules::host(&host_slice, &allow, &apart))?;
            enable_forwarding()
        });
        prepared.await.map_err(|error| NetworkError::Io { attempted: "prepare the host's network", source: error.into() })??;
        let resolvers = if config.resolvers.is_empty() { dns::host_resolvers() } else { config.resolvers.clone() };
        if resolvers.is_empty() {
            tracing::warn!("no resolver in /etc/resolv.conf and none configured: names do not resolve in guests");
        }
        let factory = Arc::new(Factory {
            left: Mutex::new(interfaces(&slice).into_iter().collect()),
            slice,
            allow: config.allow.clone(),
            resolvers,
            next: AtomicU32::new(0),
            closed: RwLock::new(false),
            leaving: TaskTracker::new(),
            _lock: lock,
            runtime: tokio::runtime::Handle::current(),
        });
        let (ready, taken) = (Arc::new(Mutex::new(VecDeque::new())), Arc::new(Notify::new()));
        let refill = tokio::spawn(refill(factory.clone(), ready.clone(), taken.clone(), config.pool, tell));
        Ok(Self { factory, ready, taken, refill })
    }

    /// A cell nobody has used.
    pub(crate) async fn take(&self) -> Result<Cell, NetworkError> {
        let waiting = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        self.taken.notify_one();
        match waiting {
            Some(cell) => Ok(cell),
            None => self.factory.make().await,
        }
    }

    /// A user number that no other living machine of any daemon on this host has.
    pub(crate) fn user_of(&self, cell: &Cell) -> u32 {
        self.factory.user_of(cell)
    }

    /// `ebNN`: no other daemon on this host has it while this one lives.
    pub(crate) fn name(&self) -> &str {
        &self.factory.slice.prefix
    }

    /// Whether a user number is one of this daemon's machines'.
    pub(crate) fn is_user(&self, uid: u32) -> bool {
        self.factory.slice.is_user(uid)
    }

    pub(crate) fn adopt(&self, namespace: NetworkNamespace, number: u32) -> Result<Cell, NetworkError> {
        self.factory.adopt(namespace, number)
    }

    /// Takes away the links that a former daemon left and no machine was adopted with. The namespaces alone would do so when the last connection in them is
    /// given up, minutes after their guests' sudden end.
    pub(crate) async fn sweep(&self) {
        let factory = self.factory.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || factory.sweep()).await {
            tracing::warn!(%error, "the links that a former daemon left could not be taken away");
        }
    }

    /// Takes away what nobody uses, and with the last cell the host's rules. A runtime that ends does not finish a cell that is being made: its link would
    /// stay for a moment, and keep the rules.
    pub(crate) async fn close(&self) {
        self.refill.abort();
        self.factory.leaving.close();
        self.factory.leaving.wait().await;
        let (factory, ready) = (self.factory.clone(), self.ready.clone());
        if let Err(error) = tokio::task::spawn_blocking(move || factory.close(&ready)).await {
            tracing::warn!(%error, "the cells that were made ahead could not be taken away");
        }
    }
}

impl Drop for CellPool {
    fn drop(&mut self) {
        self.refill.abort();
        self.factory.close(&self.ready);
    }
}

impl Factory {
    fn user_of(&self, cell: &Cell) -> u32 {
        self.slice.first_user() + cell.number
    }

    fn adopt(&self, namespace: NetworkNamespace, number: u32) -> Result<Cell, NetworkError> {
        let link = self.slice.link(number);
        let cell = Cell::adopt(namespace, &link, &self.resolvers, &self.runtime, self.leaving.clone())?;
        self.left().remove(&link.interface);
        Ok(cell)
    }

    fn sweep(&self) {
        // Held to the end: nobody makes one of them meanwhile.
        for interface in self.left().drain() {
            remove_link(&interface);
        }
    }

    fn left(&self) -> MutexGuard<'_, HashSet<String>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a cell that is being made: its link would be found below, and outlive this daemon's rules or keep them.
    fn close(&self, ready: &Mutex<VecDeque<Cell>>) {
        let mut closed = self.closed.write().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *closed, true) {
            return;
        }
        ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Machines that go on running still need the host's rules: they stay until no interface of this daemon is left.
        if interfaces(&self.slice).is_empty()
            && let Err(error) = tools::nft(None, &rules::remove_host(&self.slice))
        {
            tracing::warn!(%error, "the host's packet filter rules could not be removed");
        }
    }

    async fn make(self: &Arc<Self>) -> Result<Cell, NetworkError> {
        let factory = self.clone();
        let made = tokio::task::spawn_blocking(move || factory.make_blocking());
        made.await.map_err(|error| NetworkError::Io { attempted: "make a cell", source: error.into() })?
    }

    fn make_blocking(&self) -> Result<Cell, NetworkError> {
        // A number whose link still exists (its machine lives) is refused by the kernel: the next one is tried.
        let mut last = NetworkError::NoAddresses;
        let mut refused = 0;
        for _ in 0..LINKS {
            let link = self.slice.link(self.next.fetch_add(1, Ordering::Relaxed));
            if self.left().contains(&link.interface) || Path::new("/sys/class/net").join(&link.interface).exists() {
                continue;
            }
            match Cell::create(&link, &self.allow, &self.resolvers, &self.runtime, self.leaving.clone()) {
                Err(error @ NetworkError::Refused { tool: "ip", .. }) if refused < REFUSALS => (last, refused) = (error, refused + 1),
                other => return other,
            }
        }
        Err(last)
    }
}

/// Makes a cell for the queue on a thread that blocks. Nothing is in transit meanwhile: either it is in the queue or it is not made.
async fn make_ahead(factory: Arc<Factory>, ready: Arc<Mutex<VecDeque<Cell>>>, tell: ReadyHook) -> Result<(), NetworkError> {
    let made = tokio::task::spawn_blocking(move || {
        let closed = factory.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            return Ok(());
        }
        let cell = factory.make_blocking()?;
        tell(factory.user_of(&cell));
        ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(cell);
        Ok(())
    });
    made.await.map_err(|error| NetworkError::Io { attempted: "make a cell ahead", source: error.into() })?
}

async fn refill(factory: Arc<Factory>, ready: Arc<Mutex<VecDeque<Cell>>>, taken: Arc<Notify>, size: usize, tell: ReadyHook) {
    loop {
        while ready.lock().unwrap_or_else(PoisonError::into_inner).len() < size {
            if let Err(error) = make_ahead(factory.clone(), ready.clone(), tell.clone()).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a network cell could not be made ahead; launches will try themselves"
                );
                break;
            }
        }
        taken.notified().await;
        if ready.lock().unwrap_or_else(PoisonError::into_inner).len() * 2 >= size {
            tokio::time::sleep(YIELDS_FOR).await;
        }
        let since = Instant::now();
        while !a_cpu_is_free() && since.elapsed() < YIELDS_AT_MOST {
            tokio::time::sleep(YIELDS_AGAIN).await;
        }
    }
}

/// Whether one process more would have to wait for none of the others. Where the kernel does not tell, it would not.
fn a_cpu_is_free() -> bool {
    let wanting = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| runnable(&text));
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    // One of them asks here.
    wanting.is_none_or(|wanting| wanting <= cpus)
}

/// Of /proc/loadavg (proc(5)): threads that run or wait for a CPU now.
fn runnable(loadavg: &str) -> Option<usize> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.0.parse().ok()
}

/// A host's cells as others see them.
#[derive(Debug)]
pub(crate) struct SurveyedNetwork(Option<Slice>);

impl SurveyedNetwork {
    /// Of the host whose record this is; one that never started has none.
    pub(crate) fn of(record: &Path) -> Self {
        Self(recorded(record))
    }

    pub(crate) fn is_user(&self, uid: u32) -> bool {
        self.0.as_ref().is_some_and(|slice| slice.is_user(uid))
    }

    pub(crate) fn interfaces(&self) -> Vec<String> {
        let mut names = self.0.as_ref().map(interfaces).unwrap_or_default();
        names.sort();
        names
    }

    pub(crate) fn remove(interface: &str) -> Result<(), NetworkError> {
        tools::ip(None, &format!("link del {interface}\n"))
    }
}

/// Hosts' ends of this slice's links.
fn interfaces(slice: &Slice) -> Vec<String> {
    let prefix = format!("{}-", slice.prefix);
    let names = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    names.filter_map(|name| name.file_name().into_string().ok()).filter(|name| name.starts_with(&prefix)).collect()
}

fn recorded(record: &Path) -> Option<Slice> {
    std::fs::read_to_string(record).ok()?.trim().parse().ok().map(Slice::at)
}

/// The slice this daemon used before, else a free one, which is recorded. The lock keeps other daemons off while this one lives.
fn claim_slice(record: &Path) -> Result<(Slice, Flock<File>), NetworkError> {
    let failed = |source| NetworkError::Io { attempted: "claim addresses for cells", source };
    std::fs::create_dir_all(LOCKS).map_err(failed)?;
    if let Some(slice) = recorded(record)
        && let Some(lock) = lock_soon(&slice).map_err(failed)?
    {
        return Ok((slice, lock));
    }
    let used = host_addresses();
    let start: u32 = rand::random();
    for step in 0..SLICES {
        let slice = Slice::at(start.wrapping_add(step));
        if slice.holds_any(&used) {
            continue;
        }
        if let Some(lock) = lock(&slice).map_err(failed)? {
            crate::layout::write_atomically(record, slice.number.to_string().as_bytes()).map_err(failed)?;
            return Ok((slice, lock));
        }
    }
    Err(NetworkError::NoAddresses)
}

/// As [`lock`], for a slice whose last holder may just have been killed.
fn lock_soon(slice: &Slice) -> io::Result<Option<Flock<File>>> {
    soon(|| lock(slice), |locked| matches!(locked, Ok(None)))
}

/// `None` when another daemon has it.
fn lock(slice: &Slice) -> io::Result<Option<Flock<File>>> {
    let file = File::create(Path::new(LOCKS).join(format!("{}.lock", slice.prefix)))?;
    Ok(Flock::lock(file, FlockArg::LockExclusiveNonblock).ok())
}

fn host_addresses() -> Vec<Ipv4Addr> {
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    addresses.filter_map(|entry| Some(entry.address?.as_sockaddr_in()?.ip())).collect()
}

/// Whether forwarding is on for our sake alone: it was off when a daemon first asked since the host's boot.
fn forwarding_is_ours() -> Result<bool, NetworkError> {
    let marker = Path::new(LOCKS).join("forwarding");
    if !is_forwarding()? {
        File::create(&marker).map_err(forwarding_failed)?;
    }
    Ok(marker.exists())
}

/// Interfaces with a device behind them: the host's own networks, not those of containers.
fn physical_interfaces() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let physical = entries.filter(|entry| entry.path().join("device").exists());
    physical.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn enable_forwarding() -> Result<(), NetworkError> {
    if !is_forwarding()? {
        std::fs::write(FORWARD, "1").map_err(forwarding_failed)?;
        tracing::info!("turned on IPv4 forwarding (net.ipv4.ip_forward=1) for guests; the host's own networks stay apart");
    }
    Ok(())
}

fn is_forwarding() -> Result<bool, NetworkError> {
    Ok(std::fs::read_to_string(FORWARD).map_err(forwarding_failed)?.trim() == "1")
}

fn forwarding_failed(source: io::Error) -> NetworkError {
    NetworkError::Io { attempted: "turn on IPv4 forwarding (sysctl net.ipv4.ip_forward)", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_of_runnable_threads() {
        assert_eq!(runnable("0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(runnable("0.20 0.18"), None);
        let told = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| runnable(&text));
        assert!(told.is_none_or(|running| running > 0), "whoever asks is one of them");
    }
}
