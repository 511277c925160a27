//! Builds and deletes image versions: one task for each, so many builds at a time as there are places.
//!
//! PENDING is written by the operation, IN_PROGRESS before the builder is asked, the end together with what it means for version and image.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use emberbox_host::{HostError, ImageKey, StepTimings};
use emberbox_store::{BuildRecord, ImageRecord, SnapshotBytes, StoreError, VersionOutcome, VersionRecord};
use emberbox_wire::microvms::{BuildState, ImageState, VersionState, VersionStatus};
use futures::FutureExt;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::Instrument;

use super::state::{Event as StateEvent, next};
use crate::control::Core;
use crate::events::{Event, Happening};
use crate::failpoints;
use crate::image_builder::{BuildFailure, BuildImage, BuiltImage, SnapshotSizes};
use crate::logs::{build_log, output_sink};
use crate::operations::definition::baseline_mib;
use crate::refusal::word;
use crate::timings::Stopwatch;

/// How often a build that waits for memory looks again: MicroVMs come and go in seconds.
const MEMORY_POLL: Duration = Duration::from_millis(500);

/// Begins the build of a version that has been written as PENDING.
pub(crate) fn build(core: &Arc<Core>, image: ImageRecord, version: VersionRecord, build: BuildRecord) {
    let span = tracing::info_span!("build", image = %image.arn, version = %version.version, build = %build.id);
    let task = Build { core: core.clone(), image, version, build };
    core.tasks.spawn(
        async move {
            let ended = match AssertUnwindSafe(task.run()).catch_unwind().await {
                Ok(ended) => ended,
                Err(_) => task.write(&task.failed(&Stopwatch::start(), &panicked())).await,
            };
            if let Err(error) = ended {
                tracing::error!(error = &error as &dyn std::error::Error, "a build could not be written");
            }
        }
        .instrument(span),
    );
}

struct Build {
    core: Arc<Core>,
    image: ImageRecord,
    version: VersionRecord,
    build: BuildRecord,
}

impl Build {
    /// A stop of the daemon ends the wait for a place and drops the builder's work, never a write: the next start finds the build PENDING and queues
    /// it again, or IN_PROGRESS and says that it failed.
    async fn run(&self) -> Result<(), StoreError> {
        let stop = &self.core.stop;
        let mut clock = Stopwatch::start();
        let Some(place) = stop.run_until_cancelled(self.core.builds.acquire()).await else { return Ok(()) };
        let _place = place.expect("the semaphore is never closed");
        if stop.is_cancelled() {
            // The place is that of a build the same stop has dropped.
            return Ok(());
        }
        clock.step("queue_wait");
        failpoints::BUILD_PLACE.reach().await;
        if !self.begin().await? {
            return Ok(());
        }
        clock.step("record_written");
        failpoints::BUILD_RECORDED.reach().await;
        let work = AssertUnwindSafe(self.ask_builder()).catch_unwind();
        let Some(result) = stop.run_until_cancelled(work).await else { return Ok(()) };
        clock.skip();
        let outcome = match result.unwrap_or_else(|_| Err(panicked())) {
            Ok(built) => self.succeeded(&clock, &built),
            Err(failure) => self.failed(&clock, &failure),
        };
        tracing::info!(state = ?outcome.build_state, reason = outcome.reason, steps = %outcome.timings, "build ended");
        failpoints::BUILD_OUTCOME.reach().await;
        self.write(&outcome).await?;
        failpoints::BUILD_WRITTEN.reach().await;
        Ok(())
    }

    /// Writes IN_PROGRESS when there is memory for the build, waiting as long as it takes; `false` when it is not to go on.
    async fn begin(&self) -> Result<bool, StoreError> {
        let host = self.core.config.limits.host_memory_mib;
        // The builder and the machine that is captured run one after the other.
        let memory = emberbox_host::BUILDER_MEMORY_MIB.max(baseline_mib(&self.version.definition));
        if u64::from(memory) > host {
            let reason = format!(
                "INTERNAL_PLATFORM_ERROR: the build needs {memory} MiB of memory, more than the {host} MiB this host may hold (capacity)"
            );
            let failure = BuildFailure { reason, sizes: SnapshotSizes::default() };
            self.write(&failure_outcome(self.in_progress(), &failure, json!({}))).await?;
            return Ok(false);
        }
        while !self.core.store.begin_build(&self.in_progress(), memory, host).await? {
            if self.core.stop.run_until_cancelled(tokio::time::sleep(MEMORY_POLL)).await.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the end of the build and tells it.
    async fn write(&self, outcome: &VersionOutcome) -> Result<(), StoreError> {
        self.core.store.write_build(outcome).await?;
        let (build, image) = (self.build.id.to_string(), self.image.arn.to_string());
        let what = Happening::Build { build, image, state: word(outcome.build_state), reason: outcome.reason.clone() };
        self.core.teller.events.emit(Event::of(&self.image.arn.account, what, outcome.now));
        Ok(())
    }

    async fn ask_builder(&self) -> Result<BuiltImage, BuildFailure> {
        let log = build_log(&self.image.arn.name, self.version.version, &self.build.id, self.version.definition.logging.as_ref());
        let account = self.image.arn.account.clone();
        let output = output_sink(self.core.logs.clone(), self.core.clock.clone(), account.clone(), log);
        let Some(key) = ImageKey::new(self.version.image_key.clone()) else {
            unreachable!("image keys are a uuid and a number, which fit a directory name");
        };
        let request = BuildImage { account, key, definition: self.version.definition.clone() };
        self.core.builder.build(request, output).await
    }

    fn in_progress(&self) -> VersionOutcome {
        VersionOutcome {
            image: self.image.id,
            version: self.version.version,
            build: self.build.id.clone(),
            image_state: self.image.state,
            version_state: VersionState::InProgress,
            status: VersionStatus::Inactive,
            build_state: BuildState::InProgress,
            reason: None,
            sizes: SnapshotBytes::default(),
            timings: json!({}),
            built: None,
            now: self.core.clock.now(),
        }
    }

    fn succeeded(&self, clock: &Stopwatch, built: &BuiltImage) -> VersionOutcome {
        VersionOutcome {
            image_state: settled(self.image.state, StateEvent::Built),
            version_state: VersionState::Successful,
            status: VersionStatus::Active,
            build_state: BuildState::Successful,
            sizes: bytes(built.sizes),
            timings: clock.report(&built.steps),
            built: serde_json::to_value(built).ok(),
            ..self.in_progress()
        }
    }

    fn failed(&self, clock: &Stopwatch, failure: &BuildFailure) -> VersionOutcome {
        let timings = clock.report(&StepTimings::default());
        failure_outcome(self.in_progress(), failure, timings)
    }
}

/// `progress` ended by a failure.
fn failure_outcome(progress: VersionOutcome, failure: &BuildFailure, timings: Value) -> VersionOutcome {
    VersionOutcome {
        image_state: settled(progress.image_state, StateEvent::BuildFailed),
        version_state: VersionState::Failed,
        build_state: BuildState::Failed,
        reason: Some(failure.reason.clone()),
        sizes: bytes(failure.sizes),
        timings,
        ..progress
    }
}

fn panicked() -> BuildFailure {
    BuildFailure { reason: "INTERNAL_PLATFORM_ERROR: the build ended by a fault of Emberbox".into(), sizes: SnapshotSizes::default() }
}

/// The image's state after a build. One that is not being built (its record was changed by hand) stays what it is.
fn settled(state: ImageState, event: StateEvent) -> ImageState {
    next(state, event).unwrap_or(state)
}

fn bytes(sizes: SnapshotSizes) -> SnapshotBytes {
    SnapshotBytes { code_install: sizes.code_install_bytes, memory: sizes.memory_bytes, disk: sizes.disk_bytes }
}

/// What a start found of builds and deletions.
#[derive(Debug, Default, Serialize)]
pub(crate) struct RecoveredBuilds {
    queued_again: u32,
    failed: u32,
    deletions_continued: u32,
}

/// Finishes what a crash left of builds and deletions: waiting builds wait again, begun ones have failed, deletions go on.
pub(crate) async fn recover(core: &Arc<Core>) -> Result<RecoveredBuilds, StoreError> {
    let mut found = RecoveredBuilds::default();
    for record in core.store.unfinished_builds().await? {
        let Some(image) = core.store.image(record.image).await? else { continue };
        let Some(version) = core.store.version(record.image, record.version).await? else { continue };
        if record.state == BuildState::Pending {
            found.queued_again += 1;
            build(core, image, version, record);
            continue;
        }
        tracing::warn!(image = %image.arn, version = %version.version, "a build was cut off by the end of the daemon");
        if let Err(error) = delete_files(core, &version).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "files of a cut-off build were left behind");
        }
        let reason = "INTERNAL_PLATFORM_ERROR: the daemon restarted during the build; update the image to build it again".to_owned();
        let failure = BuildFailure { reason, sizes: SnapshotSizes::default() };
        let task = Build { core: core.clone(), image, version, build: record };
        task.write(&failure_outcome(task.in_progress(), &failure, json!({}))).await?;
        found.failed += 1;
    }
    for image in core.store.images_in(ImageState::Deleting).await? {
        found.deletions_continued += 1;
        delete_image(core, image);
    }
    for version in core.store.versions_in(VersionState::Deleting).await? {
        found.deletions_continued += 1;
        delete_version(core, version);
    }
    Ok(found)
}

/// Deletes the files of an image that has been written as DELETING.
pub(crate) fn delete_image(core: &Arc<Core>, image: ImageRecord) {
    let (core, task) = (core.clone(), &core.tasks);
    task.spawn(async move {
        let files = async {
            failpoints::DELETE_IMAGE_RECORDED.reach().await;
            let mut deleted = true;
            for version in core.store.versions(image.id, None, u32::from(u16::MAX)).await?.items {
                deleted &= files_are_gone(&core, &version).await;
            }
            failpoints::DELETE_IMAGE_FILES.reach().await;
            Ok::<_, StoreError>(deleted)
        };
        let result = match AssertUnwindSafe(files).catch_unwind().await.unwrap_or(Ok(false)) {
            Ok(deleted) => core.store.end_image_delete(&image, deleted, core.clock.now()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::error!(image = %image.arn, error = &error as &dyn std::error::Error, "a deletion could not be written");
        }
    });
}

/// Deletes the files of a version that has been written as DELETING.
pub(crate) fn delete_version(core: &Arc<Core>, version: VersionRecord) {
    let (core, task) = (core.clone(), &core.tasks);
    task.spawn(async move {
        let files = async {
            failpoints::DELETE_VERSION_RECORDED.reach().await;
            let gone = files_are_gone(&core, &version).await;
            failpoints::DELETE_VERSION_FILES.reach().await;
            gone
        };
        let gone = AssertUnwindSafe(files).catch_unwind().await.unwrap_or(false);
        let state = if gone { VersionState::Deleted } else { VersionState::DeleteFailed };
        if let Err(error) = core.store.end_version_delete(&version, state, core.clock.now()).await {
            tracing::error!(version = %version.version, error = &error as &dyn std::error::Error, "a deletion could not be written");
        }
    });
}

async fn files_are_gone(core: &Core, version: &VersionRecord) -> bool {
    let result = delete_files(core, version).await;
    if let Err(error) = &result {
        tracing::error!(key = version.image_key, error = error as &dyn std::error::Error, "an image's files could not be deleted");
    }
    result.is_ok()
}

async fn delete_files(core: &Core, version: &VersionRecord) -> Result<(), HostError> {
    match ImageKey::new(version.image_key.clone()) {
        Some(key) => core.host.delete_image(&key).await,
        None => Ok(()),
    }
}
