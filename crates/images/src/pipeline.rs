//! The steps from an artifact to an image: fetch, unpack, build, capture.
//!
//! Owns the order, the times, and that a failure leaves nothing: the directory of a build goes with its [`Workspace`], the host's files by
//! `delete_image`. A build whose future is dropped removes its directory, and its caller deletes the image before the key is used again (so does the next build of it).

use std::fs::File;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use emberbox_control::image_builder::{BuildFailure, BuildImage, BuiltImage, ImageBuilder, SnapshotSizes};
use emberbox_host::{
    BuildRootDisk, CaptureImage, CapturedImage, Container, EndCause, Host, HostError, Output, OutputSink, Registry, RootDisk, StepTimings,
};
use emberbox_wire::microvms::CodeArtifact;
use futures::FutureExt;

use crate::artifact::{Limits, S3Location, Unpacked, unpack};
use crate::definition::Requirements;
use crate::source::{ArtifactSource, Reader};
use crate::workspace::{self, Workspace};
use crate::{failpoints, reason};

/// Long enough for a compilation of some size under emulation.
pub const DEFAULT_BUILD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// What an operator may choose.
#[derive(Debug, Clone)]
pub struct Settings {
    pub limits: Limits,
    /// What `FROM` may name.
    pub registries: Vec<Registry>,
    /// Artifacts are unpacked below it. Belongs to one pipeline alone, which empties it of leftovers.
    pub work_dir: PathBuf,
    /// Of the container build.
    pub build_timeout: Duration,
}

/// Makes images on one host.
pub struct Pipeline {
    source: Arc<dyn ArtifactSource>,
    host: Arc<dyn Host>,
    settings: Settings,
}

/// One build on its way. Its error is the reason that the user reads.
struct Build<'a> {
    pipeline: &'a Pipeline,
    request: &'a BuildImage,
    output: &'a OutputSink,
    steps: StepTimings,
    sizes: SnapshotSizes,
}

impl Pipeline {
    /// Makes the work directory and removes from it what a crash left.
    pub fn new(source: Arc<dyn ArtifactSource>, host: Arc<dyn Host>, settings: Settings) -> io::Result<Self> {
        workspace::prepare(&settings.work_dir)?;
        Ok(Self { source, host, settings })
    }

    /// A failure to delete changes nothing about the answer: the next build of the key tries again.
    async fn discard(&self, request: &BuildImage) {
        if let Err(error) = self.host.delete_image(&request.key).await {
            tracing::warn!(image = %request.key, %error, "the files of a failed image build may have stayed");
        }
    }
}

#[async_trait]
impl ImageBuilder for Pipeline {
    async fn build(&self, request: BuildImage, output: OutputSink) -> Result<BuiltImage, BuildFailure> {
        let mut build =
            Build { pipeline: self, request: &request, output: &output, steps: StepTimings::default(), sizes: SnapshotSizes::default() };
        // A step that panics is one that failed: what was made by then goes, too.
        let made = AssertUnwindSafe(build.run()).catch_unwind().await.unwrap_or_else(|_| Err(reason::panicked()));
        let (steps, sizes) = (build.steps, build.sizes);
        match made {
            Ok(root) => Ok(BuiltImage { config: root.config, sizes, steps }),
            Err(reason) => {
                self.discard(&request).await;
                Err(BuildFailure { reason, sizes })
            }
        }
    }
}

/// Whether it may go better the next time: what needs more memory than there is will again.
fn is_worth_another(end: EndCause) -> bool {
    !matches!(end, EndCause::MemoryLimit | EndCause::HostMemory)
}

impl Build<'_> {
    async fn run(&mut self) -> Result<RootDisk, String> {
        let requirements =
            Requirements::of(&self.request.definition).map_err(|what| format!("The definition of the image is not valid: {what}."))?;
        // What a crashed build of the same key left behind.
        self.pipeline.host.delete_image(&self.request.key).await.map_err(|error| reason::host_failed(&error))?;
        let root = self.root_disk(&requirements).await?;
        failpoints::BUILD_ROOT_DISK.pass().await.map_err(reason::injected)?;
        self.sizes.code_install_bytes = Some(root.used_bytes);
        let captured = self.capture(requirements, &root).await.map_err(|error| reason::host_failed(&error))?;
        failpoints::BUILD_CAPTURE.pass().await.map_err(reason::injected)?;
        self.sizes.memory_bytes = Some(captured.memory_bytes);
        self.sizes.disk_bytes = Some(captured.disk_bytes);
        self.steps.0.extend(captured.steps.0);
        Ok(root)
    }

    /// From the artifact to the root disk; the workspace is gone afterwards.
    async fn root_disk(&mut self, requirements: &Requirements) -> Result<RootDisk, String> {
        let workspace = Workspace::create(&self.pipeline.settings.work_dir)
            .map_err(|error| reason::io_failed("make a directory for the build", &error))?;
        let made = self.root_disk_in(&workspace, requirements).await;
        workspace.remove().await;
        made
    }

    async fn root_disk_in(&mut self, workspace: &Workspace, requirements: &Requirements) -> Result<RootDisk, String> {
        self.fetch(workspace).await?;
        self.unpack(workspace).await?;
        self.begin("build");
        let (base, version) = self.pipeline.host.base();
        self.say(format!("managed base: {base} (Debian {version}), whatever name it was asked for by"));
        let request = || BuildRootDisk {
            image: self.request.key.clone(),
            context: workspace.context(),
            environment: requirements.environment.clone(),
            registries: self.pipeline.settings.registries.clone(),
            disk_gib: requirements.shape.disk_gib,
            timeout: self.pipeline.settings.build_timeout,
        };
        let build = || self.pipeline.host.build_root_disk(request(), Arc::clone(self.output));
        let root = self.again_if_cut_off(build).await.map_err(|error| reason::host_failed(&error))?;
        self.steps.0.extend(root.steps.0.iter().cloned());
        Ok(root)
    }

    async fn fetch(&mut self, workspace: &Workspace) -> Result<(), String> {
        let begun = self.begin("fetch");
        let CodeArtifact::Uri(uri) = &self.request.definition.code_artifact;
        let location: S3Location =
            uri.parse().map_err(|wrong| format!("S3_INVALID_OBJECT: The code artifact's URI is not valid: {wrong}."))?;
        let limit = self.pipeline.settings.limits.archive_bytes;
        let source = &self.pipeline.source;
        let reader = Reader { account: &self.request.account, role: &self.request.definition.build_role_arn };
        let fetched = source.fetch(reader, &location.bucket, &location.key, &workspace.archive(), limit).await;
        let bytes = fetched.map_err(|error| reason::fetch_failed(&location, limit, error))?;
        self.say(format!("{location}: {bytes} bytes"));
        self.ended("build.fetch", begun);
        failpoints::BUILD_FETCH.pass().await.map_err(reason::injected)
    }

    async fn unpack(&mut self, workspace: &Workspace) -> Result<(), String> {
        let begun = self.begin("unpack");
        let (archive, context, limits) = (workspace.archive(), workspace.context(), self.pipeline.settings.limits.clone());
        let share = workspace.share();
        let unpacking = tokio::task::spawn_blocking(move || {
            let file = File::open(&archive).map_err(|error| reason::io_failed("open the artifact", &error))?;
            let unpacked = unpack(file, &context, &limits, &share.abandoned).map_err(|error| reason::archive_refused(&error))?;
            std::fs::remove_file(&archive).map_err(|error| reason::io_failed("remove the artifact", &error))?;
            Ok::<Unpacked, String>(unpacked)
        });
        let unpacked = unpacking.await.map_err(|error| reason::internal("unpack the artifact", &error))??;
        self.say(format!("{} files and directories, {} bytes", unpacked.entries, unpacked.bytes));
        self.ended("build.unpack", begun);
        failpoints::BUILD_UNPACK.pass().await.map_err(reason::injected)
    }

    async fn capture(&self, requirements: Requirements, root: &RootDisk) -> Result<CapturedImage, HostError> {
        self.begin("capture");
        let container = Container {
            config: root.config.clone(),
            environment: requirements.environment,
            all_capabilities: requirements.all_capabilities,
        };
        let request = || CaptureImage {
            image: self.request.key.clone(),
            shape: requirements.shape,
            container: container.clone(),
            ready: requirements.ready.clone(),
            validate: requirements.validate.clone(),
        };
        self.again_if_cut_off(|| self.pipeline.host.capture_image(request(), Arc::clone(self.output))).await
    }

    /// A virtual machine that dies at work says nothing about the image, so the work is begun anew, once: an image that kills its machine is stopped then.
    async fn again_if_cut_off<T, F>(&self, work: impl Fn() -> F) -> Result<T, HostError>
    where
        F: Future<Output = Result<T, HostError>>,
    {
        match work().await {
            Err(HostError::MachineEnded(end)) if is_worth_another(end.cause) => {
                tracing::warn!(image = %self.request.key, cause = ?end.cause, output = end.last_words, "a build's machine ended unasked: beginning anew");
                self.say(format!("the build was cut off, beginning anew: {end}"));
                work().await
            }
            other => other,
        }
    }

    fn begin(&self, step: &str) -> Instant {
        (self.output)(Output::Step(step.to_owned()));
        Instant::now()
    }

    fn say(&self, line: String) {
        (self.output)(Output::Line(line));
    }

    fn ended(&mut self, step: &str, begun: Instant) {
        self.steps.0.push((step.to_owned(), begun.elapsed()));
    }
}
