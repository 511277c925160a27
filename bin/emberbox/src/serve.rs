//! `emberbox serve`: constructs the parts, says that they serve, and takes them down in order.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use emberbox_api::{Server, ServerConfig};
use emberbox_companions::iam::Iam;
use emberbox_companions::{s3, sts::Sts};
use emberbox_control::access::Access;
use emberbox_control::{Collaborators, Control, ControlConfig, EndpointSettings, SystemClock, accounts};
use emberbox_host::{Host, HostHandle, LocalHost, LocalHostConfig, NetworkConfig};
use emberbox_images::{Pipeline, Settings};
use emberbox_ingress::{Authority, Ingress, IngressConfig, IngressMode};
use emberbox_store::{Store, StoreError};
use emberbox_wire::ids::AccountId;
use nix::fcntl::{Flock, FlockArg};
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::arguments::{LogForm, Serve};
use crate::audit::AuditFiles;
use crate::build_logs::BuildLogs;
use crate::config::Config;
use crate::environment::Endpoint;
use crate::events::EventFiles;
use crate::failpoints;
use crate::limits::limits;
use crate::open_files;
use crate::parts::{Artifacts, ControlOperations, Keys};
use crate::trust;

pub(crate) const DATABASE: &str = "emberbox.db";
pub(crate) const ENDPOINT: &str = "endpoint.json";
pub(crate) const LOGS: &str = "logs";
pub(crate) const HOST: &str = "host";
pub(crate) const AUDIT: &str = "audit";
pub(crate) const EVENTS: &str = "events";
/// What the last events may take to reach a slow disk.
const AUDIT_DEADLINE: Duration = Duration::from_secs(5);
pub(crate) const LOCK: &str = "lock";
const LOCK_ATTEMPTS: u32 = 40;
/// Threads for file work stay: on a host that has no more to give, what runs is looked after by those there are.
const THREADS_KEPT: Duration = Duration::from_secs(60 * 60);
const LOCK_POLL: Duration = Duration::from_millis(50);

pub(crate) fn run(arguments: Serve) -> anyhow::Result<()> {
    start_log(arguments.log);
    emberbox_failpoints::from_environment(failpoints::all()).context("could not follow the failpoints' file")?;
    let config = Config::load(&arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_keep_alive(THREADS_KEPT).build()?;
    let outcome = runtime.block_on(serve(&arguments, config));
    // Blocking file work that nobody waits for any more does not hold up the end.
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome
}

fn start_log(form: LogForm) {
    let filter = EnvFilter::try_from_env("EMBERBOX_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // What cannot be logged, on a full disk, is not told to the same place by a macro that panics when it cannot.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).log_internal_errors(false);
    match form {
        LogForm::Text => log.init(),
        LogForm::Json => log.json().flatten_event(true).init(),
    }
}

async fn serve(arguments: &Serve, config: Config) -> anyhow::Result<()> {
    let data = &*arguments.data.data;
    let _lock = claim(data).await?;
    open_files::raise(config.capacity.microvms()?);
    let store = open_store(&data.join(DATABASE), arguments.accept_lost_records).await?;
    let authority = Arc::new(Authority::load_or_create(&data.join("ca")).context("could not load or make the CA")?);
    let local = start_host(data, &config).await?;
    let host: Arc<dyn Host> = Arc::new(HostHandle(local.clone()));
    let tokens = accounts::token_keys(&store).await.context("could not load or make the key of endpoint tokens")?;
    let access = Access::open(store.clone(), &config.region, Arc::new(SystemClock))
        .await
        .context("could not load or make the key of session tokens")?;
    let account = AccountId(config.account.clone());
    let (s3, reader) = s3::service(data.join("s3"), &config.region, account, access.clone()).context("could not open the buckets")?;
    let artifacts = Arc::new(Artifacts { reader, access: access.clone() });
    let builder = Pipeline::new(artifacts, host.clone(), build_settings(data, &config)).context("could not prepare builds")?;
    let logs = Arc::new(
        BuildLogs::start(data.join(LOGS), Duration::from_secs(config.retention.logs_seconds)).context("could not open the build logs")?,
    );

    let events = Arc::new(EventFiles::start(&data.join(EVENTS), &config.events).context("could not open the event stream")?);
    let audit = Arc::new(AuditFiles::start(&data.join(AUDIT), &config.audit).context("could not open the audit log")?);

    // Control names endpoints by the port, and ingress asks control: the port is claimed first.
    let listener = TcpListener::bind(config.api.listen).await.with_context(|| format!("could not listen on {}", config.api.listen))?;
    let pending = Ingress::claim(ingress_config(&config)).context("could not listen for the endpoints of MicroVMs")?;
    let control_config = control_config(&config, pending.port())?;
    let collaborators = Collaborators {
        access: access.clone(),
        host,
        builder: Arc::new(builder),
        tokens: tokens.clone(),
        logs,
        audit: audit.clone(),
        events: events.clone(),
    };
    let control = Control::start(control_config, collaborators).await.context("could not start")?;
    let ingress = pending.serve(authority.clone(), control.clone(), tokens).context("could not serve the endpoints of MicroVMs")?;
    let keys = Arc::new(Keys(access.clone()));
    let operations = Arc::new(ControlOperations(control.clone()));
    let server = Server::new(ServerConfig::new(&config.region), keys, operations, audit.clone())?
        .with_sts(Arc::new(Sts::new(access.clone())))
        .with_iam(Arc::new(Iam::new(access)))
        .with_s3(Arc::new(s3));

    let endpoint = Endpoint {
        api: format!("http://{}", reachable(listener.local_addr()?)),
        ingress_port: ingress.port(),
        region: config.region.clone(),
        account: config.account.clone(),
        ca: authority.certificate_path().to_path_buf(),
        ca_bundle: trust::write_client_bundle(authority.certificate_path())?,
        pid: std::process::id(),
    };
    announce(data, &endpoint)?;
    tell_manager(&[NotifyState::Ready]);
    let stop = CancellationToken::new();
    let serving = async { tokio::join!(server.serve(listener, stop.cancelled()), ingress.run(stop.cancelled())) };
    tokio::pin!(serving);
    tokio::select! {
        _ = &mut serving => {}
        asked = asked_to_stop() => {
            asked?;
            tracing::info!("stopping: requests under way are finished, MicroVMs go on");
            tell_manager(&[NotifyState::Stopping]);
            stop.cancel();
            serving.await;
        }
    }
    control.shutdown().await;
    local.close().await;
    store.close().await;
    audit.flush(AUDIT_DEADLINE);
    events.flush(AUDIT_DEADLINE);
    Ok(())
}

/// Records that were acknowledged and are gone must not be decided upon unseen: machines they tell of would be stopped as nobody's.
async fn open_store(path: &Path, accept_lost_records: bool) -> anyhow::Result<Store> {
    if accept_lost_records && let Some(kept) = Store::accept_lost_records(path).context("could not cut the damaged journal")? {
        tracing::warn!(kept = %kept.display(), "the journal was damaged: going on without the records that are lost");
    }
    Store::open(path).await.map_err(|error| {
        let advice = match &error {
            StoreError::Journal(_) => {
                "restore a backup, or start once with --accept-lost-records: MicroVMs without a record are then ended"
            }
            StoreError::Damaged(_) => "restore a backup of it",
            StoreError::Full(_) => "free some space on its disk",
            StoreError::NewerSchema => "use the version of Emberbox that wrote it",
            _ => "see the cause",
        };
        anyhow::Error::new(error).context(format!("could not open the records in {} ({advice})", path.display()))
    })
}

/// One daemon to a data directory. Waits a moment: a process that a killed daemon was just starting keeps its lock until it is executed.
async fn claim(data: &Path) -> anyhow::Result<Flock<File>> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::create_dir_all(data).with_context(|| format!("could not make {}", data.display()))?;
    std::fs::set_permissions(data, std::fs::Permissions::from_mode(0o700))
        .with_context(|| format!("could not protect {}", data.display()))?;
    let file = File::create(data.join(LOCK)).with_context(|| format!("could not open the lock in {}", data.display()))?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
    for _ in 0..LOCK_ATTEMPTS {
        match lock {
            Ok(lock) => return Ok(lock),
            Err((file, _)) => {
                tokio::time::sleep(LOCK_POLL).await;
                lock = Flock::lock(file, FlockArg::LockExclusiveNonblock);
            }
        }
    }
    lock.map_err(|_| anyhow::anyhow!("another daemon serves from {}: stop it, or give this one another --data", data.display()))
}

async fn start_host(data: &Path, config: &Config) -> anyhow::Result<Arc<LocalHost>> {
    let network =
        NetworkConfig { pool: config.network.pool, allow: config.network.allow.clone(), resolvers: config.network.resolvers.clone() };
    let host = LocalHost::start(LocalHostConfig {
        data: data.join(HOST),
        base: config.base.clone(),
        engine: config.engine.kind.into(),
        monitor: config.engine.monitor_options(),
        network,
        extra_ca_pem: trust::for_guests(&config.trust.ca_bundle)?,
        disk_reserve: config.storage.reserve_mib << 20,
        compression: config.snapshot.compress.into(),
        suspend_within: Duration::from_secs(config.snapshot.within_seconds),
        working_sets: config.snapshot.working_set,
    });
    Ok(host.await?)
}

fn build_settings(data: &Path, config: &Config) -> Settings {
    Settings {
        limits: config.build.limits.clone(),
        registries: config.build.registries.clone(),
        work_dir: data.join("builds"),
        build_timeout: Duration::from_secs(config.build.timeout_seconds),
    }
}

fn ingress_config(config: &Config) -> IngressConfig {
    let mode = match &config.ingress.domain {
        Some(domain) => IngressMode::Domain { domain: domain.clone(), listen: config.ingress.listen },
        None => IngressMode::Loopback,
    };
    IngressConfig::new(config.ingress.port, mode)
}

fn control_config(config: &Config, port: u16) -> anyhow::Result<ControlConfig> {
    let endpoint = match &config.ingress.domain {
        Some(domain) => EndpointSettings::Domain { domain: domain.clone(), port },
        None => EndpointSettings::Loopback { port },
    };
    Ok(ControlConfig {
        region: config.region.clone(),
        default_account: AccountId(config.account.clone()),
        endpoint,
        parallel_builds: config.build.parallel,
        limits: limits(&config.capacity, &config.quotas, &config.rates)?,
        lives: config.lives(),
    })
}

/// Tells the commands around the daemon where it serves, and the person who started it what to do next.
fn announce(data: &Path, endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(data)?;
    file.write_all(&serde_json::to_vec_pretty(endpoint)?)?;
    file.persist(data.join(ENDPOINT)).context("could not write endpoint.json")?;
    let data_flag = match data == Path::new(crate::arguments::DEFAULT_DATA) {
        true => String::new(),
        false => format!(" --data {}", data.display()),
    };
    // Nobody may be there to read it, or the disk it goes to be full.
    let _ = writeln!(
        std::io::stdout(),
        "Emberbox serves the AWS API at {}\n  CA of the MicroVMs' HTTPS endpoints: {}\n  use it from a shell with any AWS tool: eval \"$(emberbox env{data_flag})\"",
        endpoint.api,
        endpoint.ca.display()
    );
    Ok(())
}

/// The service manager that started the daemon, if one did.
fn tell_manager(state: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::warn!(%error, "the service manager could not be told");
    }
}

/// Where a client on this machine finds a listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    address
}

async fn asked_to_stop() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
