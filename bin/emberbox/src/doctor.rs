//! `emberbox doctor`: the whole store against reality, and repairs.
//!
//! With a daemon at work it only looks, twice, since what is on its way looks wrong for a moment; what daemons make and take away all the time (cells,
//! builders, half-made files) is not looked at then. Repairs need the data directory for themselves.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use emberbox_control::doctor::{Finding, Records, Repair, examine, terminate};
use emberbox_host::survey::{Depth, Survey, remove, survey};
use emberbox_store::{Store, StoreError};
use nix::fcntl::{Flock, FlockArg};

use crate::arguments::Doctor;
use crate::config::Config;
use crate::serve::{DATABASE, HOST, LOCK};

/// Between the two looks at what a daemon is changing: launches and suspensions take less.
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);

pub(crate) fn run(arguments: Doctor) -> anyhow::Result<()> {
    let data = &arguments.data.data;
    ensure!(data.join(DATABASE).exists(), "no daemon has served from {}: name its directory with --data", data.display());
    let file = File::create(data.join(LOCK)).with_context(|| format!("could not open the lock in {} (are you root?)", data.display()))?;
    let alone = Flock::lock(file, FlockArg::LockExclusiveNonblock).ok();
    if arguments.repair && alone.is_none() {
        bail!("a daemon serves from {}: stop it to repair (its MicroVMs go on, and its next start repairs much by itself)", data.display());
    }
    let config = Config::read(arguments.config.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let depth = if arguments.thorough { Depth::Thorough } else { Depth::Quick };
    runtime.block_on(async {
        let store = open(&data.join(DATABASE), arguments.repair).await?;
        let looked = look(data, &store, &config, depth, alone.is_some()).await?;
        let left = report(data, &store, &looked, arguments.repair).await?;
        store.close().await;
        ensure!(left == 0, "{left} findings");
        Ok(())
    })
}

/// A look changes nothing, not even the schema of an older version's database.
async fn open(database: &Path, repair: bool) -> anyhow::Result<Store> {
    let opened = if repair { Store::open(database).await } else { Store::inspect(database).await };
    opened.map_err(|error| {
        let advice = match &error {
            StoreError::OlderSchema => "start this version's daemon once, or use --repair: either brings it up to date",
            StoreError::NewerSchema => "use the emberbox that wrote it",
            _ => "restore emberbox.db from a backup",
        };
        anyhow::Error::new(error).context(format!("the database cannot be opened ({advice})"))
    })
}

struct Looked {
    survey: Survey,
    findings: Vec<Finding>,
}

async fn look(data: &Path, store: &Store, config: &Config, depth: Depth, alone: bool) -> anyhow::Result<Looked> {
    let once = async || {
        let (root, engine, monitor) = (data.join(HOST), config.engine.kind.into(), config.engine.monitor_options());
        let mut found = tokio::task::spawn_blocking(move || survey(&root, engine, &monitor, depth))
            .await?
            .context("could not look at the host's files")?;
        if !alone {
            found.half_made.clear();
            found.strays.clear();
            found.interfaces.clear();
        }
        let records = Records::read(store, &found).await.context("could not read the records")?;
        Ok::<_, anyhow::Error>(Looked { findings: examine(&records, &found), survey: found })
    };
    let mut looked = once().await?;
    if !alone && !looked.findings.is_empty() {
        tokio::time::sleep(BETWEEN_LOOKS).await;
        let before = std::mem::take(&mut looked.findings);
        looked = once().await?;
        looked.findings.retain(|finding| before.contains(finding));
    }
    Ok(looked)
}

/// Prints what was found, repairs it if asked to, and returns how many findings are left.
async fn report(data: &Path, store: &Store, looked: &Looked, repair: bool) -> anyhow::Result<usize> {
    let found = &looked.survey;
    println!("engine: {}", found.engine.choice);
    println!("{} machines, {} images, {} kept", found.machines.len(), found.images.len(), found.kept.len());
    let mut left = 0;
    for finding in &looked.findings {
        let repaired = repair && put_right(data, store, finding).await?;
        let outcome = if repaired { "repaired".to_owned() } else { finding.repair.to_string() };
        println!("- {} ({outcome})", finding.what);
        left += usize::from(!repaired);
    }
    match (looked.findings.len(), repair) {
        (0, _) => println!("records, files and processes agree"),
        (_, true) => {}
        (_, false) => println!("`emberbox doctor --repair`, with the daemon stopped, does what can be done"),
    }
    Ok(left)
}

/// `false` when only a person or a start of the daemon can.
async fn put_right(data: &Path, store: &Store, finding: &Finding) -> anyhow::Result<bool> {
    match &finding.repair {
        Repair::Remove(leftover) => remove(&data.join(HOST), leftover).with_context(|| format!("could not repair: {}", finding.what))?,
        Repair::Terminate(microvm) => terminate(store, *microvm).await.with_context(|| format!("could not repair: {}", finding.what))?,
        Repair::ByStart | Repair::ByHand(_) => return Ok(false),
    }
    Ok(true)
}
