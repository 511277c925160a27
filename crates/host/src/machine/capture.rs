//! Capture: start the application from the root disk that a build made, wait for `/ready`, freeze it, and keep the snapshot that launches copy.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use emberbox_agent_protocol::{Application, Capabilities, HookOutcome, LogLine, Reply, Request};
use tokio::sync::watch;

use super::boot::{BootSpec, Booted, boot};
use super::hooks::HookName;
use super::suspend::FROZEN_WITHIN;
use super::{blocking, caught, rehearsal, remove};
use crate::agent::{AgentError, AgentLink};
use crate::engine::{DiskFormat, VmDisk};
use crate::layout::{ImageFiles, SnapshotFiles, occupied_bytes, sync_directory};
use crate::local::{LocalHost, remove_directory};
use crate::snapshot::manifest::{SnapshotFile, Sums};
use crate::snapshot::{Manifest, sum::Sum};
use crate::steps::Steps;
use crate::{CaptureImage, CapturedImage, Container, HostError, Output, OutputSink, disk, failpoints};

/// Executing a container takes tens of milliseconds; mounting a disk that needs its journal replayed, seconds.
const STARTED_WITHIN: Duration = Duration::from_secs(60);
/// Without a `/ready` hook nobody says when the application is up; one that fails at once fails within this.
const SETTLE: Duration = Duration::from_secs(2);
/// What an application of some size leaves in memory and on its disk; a larger one that fills the host's disk is told so then.
const CAPTURE_BYTES: u64 = 512 << 20;
/// Lines of an application's output that an error carries.
const TAIL_LINES: usize = 20;

pub(crate) async fn capture_image(host: &Arc<LocalHost>, request: CaptureImage, output: OutputSink) -> Result<CapturedImage, HostError> {
    let image = host.layout.image(&request.image);
    let mut steps = Steps::start();
    let space = host.space.promise(CAPTURE_BYTES)?;
    let work = host.layout.work().join(format!("capture-{}", request.image));
    let outcome = caught(capture_steps(host, &request, &image, &work, &output, &mut steps)).await;
    drop(space);
    // Before anything is deleted: what is free then tells nothing.
    let outcome = outcome.map_err(|error| host.space.explain(error));
    remove(&work, "remove a capture's files").await?;
    if outcome.is_err() {
        // The root disk stays: it belongs to whoever built it.
        for leftover in [image.snapshot().0, in_progress(&image).0] {
            remove(&leftover, "remove a failed snapshot").await?;
        }
    }
    outcome?;
    let measured = occupied_bytes(&image.snapshot().memory())
        .and_then(|memory| Ok((memory, occupied_bytes(&image.disk())? + occupied_bytes(&image.root_disk())?)));
    let (memory_bytes, disk_bytes) = measured.map_err(HostError::internal("measure the snapshot"))?;
    Ok(CapturedImage { memory_bytes, disk_bytes, steps: steps.finish() })
}

async fn capture_steps(
    host: &Arc<LocalHost>,
    request: &CaptureImage,
    image: &ImageFiles,
    work: &Path,
    output: &OutputSink,
    steps: &mut Steps,
) -> Result<(), HostError> {
    output(Output::Step("starting the application".into()));
    let new = in_progress(image);
    prepare(request, image, &new, work).await?;
    steps.mark("prepare");
    failpoints::CAPTURE_PREPARE.pass().await?;
    let booted = boot_application(host, request, image, &new, work).await?;
    steps.mark("boot");
    let captured = caught(capture_running(host, request, &booted, &new, output, steps)).await;
    booted.end().await;
    captured?;
    finish(host, request, image, &new).await?;
    steps.mark("finish");
    failpoints::CAPTURE_FINISH.pass().await?;
    if rehearsal::is_wanted(host, request) {
        output(Output::Step("validating the snapshot".into()));
        rehearsal::rehearse(host, request, image).await?;
        steps.mark("validate");
        failpoints::CAPTURE_VALIDATE.pass().await?;
    }
    Ok(())
}

fn in_progress(image: &ImageFiles) -> SnapshotFiles {
    SnapshotFiles(image.0.join("snapshot.new"))
}

async fn prepare(request: &CaptureImage, image: &ImageFiles, new: &SnapshotFiles, work: &Path) -> Result<(), HostError> {
    let root = image.root_disk();
    if !root.exists() {
        return Err(HostError::NoSuchImage(request.image.clone()));
    }
    let clear = |path: &Path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    remove_directory(&new.0)
        .and_then(|()| std::fs::create_dir(&new.0))
        .and_then(|()| remove_directory(work))
        .and_then(|()| std::fs::create_dir(work))
        .and_then(|()| clear(&image.disk()))
        .and_then(|()| clear(&image.overlay_template()))
        .map_err(HostError::internal("prepare the snapshot's directory"))?;
    let bytes = u64::from(request.shape.disk_gib) << 30;
    disk::create_overlay(&image.disk(), &root, DiskFormat::Raw, bytes).await?;
    disk::create_overlay(&image.overlay_template(), &image.disk(), DiskFormat::Qcow2, bytes).await
}

async fn boot_application(
    host: &Arc<LocalHost>,
    request: &CaptureImage,
    image: &ImageFiles,
    new: &SnapshotFiles,
    work: &Path,
) -> Result<Booted, HostError> {
    let layers = [(&*image.disk(), DiskFormat::Qcow2), (&*image.root_disk(), DiskFormat::Raw)];
    let layers = disk::open_layers(&layers, false).map_err(HostError::internal("open the image's disks"))?;
    let root = VmDisk { serial: "root", read_only: false, layers };
    let spec = BootSpec { shape: request.shape, disks: vec![root], memory: new.memory(), directory: work.to_path_buf() };
    boot(host, spec).await
}

/// From a booted machine to its frozen state on disk.
async fn capture_running(
    host: &LocalHost,
    request: &CaptureImage,
    booted: &Booted,
    new: &SnapshotFiles,
    output: &OutputSink,
    steps: &mut Steps,
) -> Result<(), HostError> {
    failpoints::CAPTURE_BOOT.pass().await?;
    let application = application(&request.container, &host.extra_ca_pem)?;
    match booted.agent.command(Request::StartApplication(application), STARTED_WITHIN).await {
        Err(AgentError::Failed(reason)) => return Err(HostError::ApplicationNotStarted { reason }),
        other => other?,
    }
    steps.mark("start_application");
    failpoints::CAPTURE_START_APPLICATION.pass().await?;
    let log = ApplicationLog::follow(booted.agent.clone(), output.clone());
    match &request.ready {
        Some(call) => {
            output(Output::Step("waiting for /ready".into()));
            log.explain(HookName::Ready.call(&booted.agent, call).await)?;
        }
        None => log.settled().await?,
    }
    steps.mark("ready");
    failpoints::CAPTURE_READY.pass().await?;
    output(Output::Step("taking the snapshot".into()));
    booted.agent.command(Request::Freeze, FROZEN_WITHIN).await?;
    steps.mark("freeze");
    failpoints::CAPTURE_FREEZE.pass().await?;
    booted.vm.pause().await?;
    let state = std::fs::File::create_new(new.state()).map_err(HostError::internal("make the snapshot's state file"))?;
    booted.vm.save_state(state).await?;
    steps.mark("save");
    failpoints::CAPTURE_SAVE.pass().await?;
    Ok(())
}

/// What the image's configuration and the caller's wishes start.
fn application(container: &Container, extra_ca_pem: &str) -> Result<Application, HostError> {
    let config = &container.config;
    let argv: Vec<String> = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten()).cloned().collect();
    if argv.is_empty() {
        return Err(HostError::ApplicationNotStarted { reason: "the image has neither ENTRYPOINT nor CMD".into() });
    }
    let pairs = config.env.iter().flatten().filter_map(|pair| pair.split_once('='));
    let mut environment: BTreeMap<String, String> = pairs.map(|(name, value)| (name.into(), value.into())).collect();
    environment.extend(container.environment.clone());
    Ok(Application {
        root_disk: "root".into(),
        argv,
        environment,
        working_directory: config.working_dir.clone(),
        user: config.user.clone(),
        capabilities: if container.all_capabilities { Capabilities::All } else { Capabilities::Restricted },
        host_name: "microvm".into(),
        extra_ca_pem: extra_ca_pem.into(),
    })
}

/// Makes what was captured a snapshot: owned by root, synced, described, named.
async fn finish(host: &LocalHost, request: &CaptureImage, image: &ImageFiles, new: &SnapshotFiles) -> Result<(), HostError> {
    let engine = host.engine.identity().clone();
    let (shape, config) = (request.shape, request.container.config.clone());
    let (new, image) = (new.clone(), image.clone());
    let work = move || {
        std::os::unix::fs::chown(new.memory(), Some(0), Some(0))?;
        for path in [new.memory(), new.state(), image.disk(), image.root_disk(), image.overlay_template()] {
            std::fs::File::open(path)?.sync_all()?;
        }
        let memory_bytes = occupied_bytes(&new.memory())?;
        let manifest = Manifest { config: Some(config), ..Manifest::new(engine, shape, memory_bytes, sums(&new)?) };
        manifest.write(&new)?;
        std::fs::rename(&new.0, image.snapshot().0)?;
        sync_directory(&image.0)
    };
    blocking(work, "write the snapshot").await
}

/// Of everything that copies will read, as it is now: whoever launches one need not read it again.
fn sums(snapshot: &SnapshotFiles) -> std::io::Result<Sums> {
    let all = [SnapshotFile::State, SnapshotFile::Memory, SnapshotFile::Disk, SnapshotFile::OverlayTemplate, SnapshotFile::RootDisk];
    all.into_iter().map(|file| Ok((file, Sum::standing(&file.path(snapshot))?))).collect()
}

/// Passes the application's output on, and notices its end.
struct ApplicationLog {
    task: tokio::task::JoinHandle<()>,
    seen: watch::Receiver<Seen>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    tail: Vec<String>,
    exited: Option<i32>,
}

impl ApplicationLog {
    fn follow(agent: AgentLink, output: OutputSink) -> Self {
        let (tell, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(async move {
            let Ok(mut exchange) = agent.send(Request::FollowLogs { after: 0 }).await else { return };
            loop {
                match exchange.next().await {
                    Ok(Reply::Log(LogLine { text, .. })) => {
                        output(Output::Line(text.clone()));
                        tell.send_modify(|seen| remember(&mut seen.tail, text));
                    }
                    Ok(Reply::Exited { code }) => break tell.send_modify(|seen| seen.exited = Some(code)),
                    _ => break,
                }
            }
        });
        Self { task, seen }
    }

    /// Waits a moment for the application to fail.
    async fn settled(&self) -> Result<(), HostError> {
        let mut seen = self.seen.clone();
        match tokio::time::timeout(SETTLE, seen.wait_for(|seen| seen.exited.is_some())).await {
            Ok(Ok(seen)) => Err(HostError::ApplicationExited { code: seen.exited.unwrap_or_default(), tail: seen.tail.clone() }),
            _ => Ok(()),
        }
    }

    /// An application that ended while its hook was awaited is told as such, with its last words.
    fn explain(&self, outcome: Result<(), HostError>) -> Result<(), HostError> {
        match outcome {
            Err(HostError::Hook { outcome: HookOutcome::ApplicationExited { code }, .. }) => {
                Err(HostError::ApplicationExited { code, tail: self.seen.borrow().tail.clone() })
            }
            other => other,
        }
    }
}

impl Drop for ApplicationLog {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Keeps the last lines.
pub(super) fn remember(tail: &mut Vec<String>, line: String) {
    if tail.len() == TAIL_LINES {
        tail.remove(0);
    }
    tail.push(line);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ContainerConfig;

    #[test]
    fn an_application_is_entrypoint_and_cmd_with_the_callers_environment_over_the_images() {
        let config = ContainerConfig {
            entrypoint: Some(vec!["/app".into()]),
            cmd: Some(vec!["serve".into()]),
            env: Some(vec!["A=1".into(), "B=2=3".into()]),
            ..Default::default()
        };
        let environment = BTreeMap::from([("A".to_owned(), "9".to_owned())]);
        let application = application(&Container { config, environment, all_capabilities: false }, "").unwrap();
        assert_eq!(application.argv, ["/app", "serve"]);
        assert_eq!((application.environment["A"].as_str(), application.environment["B"].as_str()), ("9", "2=3"));
    }

    #[test]
    fn an_image_that_starts_nothing_is_said_so() {
        let container = Container { config: ContainerConfig::default(), environment: BTreeMap::new(), all_capabilities: true };
        assert!(matches!(application(&container, ""), Err(HostError::ApplicationNotStarted { .. })));
    }
}
