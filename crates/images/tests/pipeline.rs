//! The pipeline against a host that does as it is told: what it asks for, what it answers, what it leaves.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use emberbox_agent_protocol::HookOutcome;
use emberbox_control::image_builder::{BuildFailure, BuildImage, BuiltImage, ImageBuilder, SnapshotSizes};
use emberbox_host::*;
use emberbox_images::{ArtifactSource, FetchError, Limits, Pipeline, Reader, Settings};
use emberbox_wire::ids::AccountId;
use emberbox_wire::microvms::{CodeArtifact, HookState, Hooks, ImageDefinition, MicrovmImageHooks, Resources};
use support::{dockerfile, file, zip};

/// Answers with what a test put there, once; notes what it was asked.
#[derive(Default)]
struct FakeHost {
    root_disk: Mutex<Option<Result<RootDisk, HostError>>>,
    capture: Mutex<Option<Result<CapturedImage, HostError>>>,
    built: Mutex<Option<BuildRootDisk>>,
    captured: Mutex<Option<CaptureImage>>,
    calls: Mutex<Vec<&'static str>>,
    hang: bool,
    dies: bool,
}

fn not_asked<T>() -> Result<T, HostError> {
    Err(HostError::internal("not for a pipeline")("unexpected call"))
}

#[async_trait]
impl Host for FakeHost {
    async fn build_root_disk(&self, request: BuildRootDisk, output: OutputSink) -> Result<RootDisk, HostError> {
        self.calls.lock().unwrap().push("build");
        assert!(request.context.join("Dockerfile").is_file());
        *self.built.lock().unwrap() = Some(request);
        if self.hang {
            std::future::pending::<()>().await;
        }
        if self.dies {
            return Err(cut_off(EndCause::Code(0)));
        }
        output(Output::Line("STEP 1/1: FROM scratch".to_owned()));
        self.root_disk.lock().unwrap().take().unwrap_or_else(|| {
            let steps = StepTimings(vec![("build.run".to_owned(), Duration::from_secs(1))]);
            Ok(RootDisk { config: config(), used_bytes: 11, steps })
        })
    }

    async fn capture_image(&self, request: CaptureImage, _: OutputSink) -> Result<CapturedImage, HostError> {
        self.calls.lock().unwrap().push("capture");
        let context = self.built.lock().unwrap().as_ref().unwrap().context.clone();
        assert!(!context.exists(), "the context is gone before the capture");
        *self.captured.lock().unwrap() = Some(request);
        self.capture.lock().unwrap().take().unwrap_or_else(|| {
            let steps = StepTimings(vec![("build.ready".to_owned(), Duration::from_secs(2))]);
            Ok(CapturedImage { memory_bytes: 22, disk_bytes: 33, steps })
        })
    }

    async fn delete_image(&self, _: &ImageKey) -> Result<(), HostError> {
        self.calls.lock().unwrap().push("delete");
        Ok(())
    }

    async fn room(&self) -> Result<(), HostError> {
        not_asked()
    }

    async fn launch(&self, _: LaunchMachine) -> Result<StepTimings, HostError> {
        not_asked()
    }

    async fn suspend(&self, _: SuspendMachine) -> Result<Suspended, HostError> {
        not_asked()
    }

    async fn resume(&self, _: ResumeMachine) -> Result<StepTimings, HostError> {
        not_asked()
    }

    async fn stop(&self, _: StopMachine) -> Result<StepTimings, HostError> {
        not_asked()
    }

    async fn connect(&self, _: MachineId, _: u16) -> Result<Box<dyn GuestStream>, ConnectError> {
        Err(ConnectError::NotRunning)
    }

    async fn discard(&self, _machine: MachineId) -> Result<(), HostError> {
        not_asked()
    }

    async fn kept(&self) -> Result<Vec<MachineId>, HostError> {
        not_asked()
    }

    async fn usage(&self, _machine: MachineId) -> Result<Usage, HostError> {
        not_asked()
    }

    async fn memory(&self) -> Result<HostMemory, HostError> {
        not_asked()
    }

    async fn recovery(&self) -> HostRecovery {
        HostRecovery::default()
    }

    async fn inventory(&self) -> Result<Vec<Machine>, HostError> {
        not_asked()
    }

    fn exits(&self) -> tokio::sync::broadcast::Receiver<MachineExit> {
        tokio::sync::broadcast::channel(1).1
    }

    fn base(&self) -> (String, String) {
        ("fake".to_owned(), "1".to_owned())
    }
}

/// One object or one error.
struct FakeSource(Mutex<Option<Result<Vec<u8>, FetchError>>>);

#[async_trait]
impl ArtifactSource for FakeSource {
    async fn fetch(&self, reader: Reader<'_>, bucket: &str, key: &str, to: &Path, _: u64) -> Result<u64, FetchError> {
        assert_eq!((reader.account.0.as_str(), bucket, key), ("000000000000", "bucket", "app.zip"));
        let bytes = self.0.lock().unwrap().take().unwrap()?;
        std::fs::write(to, &bytes)?;
        Ok(bytes.len() as u64)
    }
}

fn config() -> ContainerConfig {
    ContainerConfig { cmd: Some(vec!["/app".to_owned()]), ..Default::default() }
}

fn definition() -> ImageDefinition {
    let image_hooks = MicrovmImageHooks { ready: Some(HookState::Enabled), ready_timeout_in_seconds: Some(300), ..Default::default() };
    ImageDefinition {
        base_image_arn: "base".to_owned(),
        base_image_version: None,
        build_role_arn: "role".to_owned(),
        description: None,
        code_artifact: CodeArtifact::Uri("s3://bucket/app.zip".to_owned()),
        logging: None,
        egress_network_connectors: None,
        cpu_configurations: None,
        resources: Some(vec![Resources { minimum_memory_in_mib: 512 }]),
        additional_os_capabilities: None,
        hooks: Some(Hooks { port: Some(9000), microvm_image_hooks: Some(image_hooks), ..Default::default() }),
        environment_variables: Some(BTreeMap::from([("MODE".to_owned(), "test".to_owned())])),
    }
}

fn request(definition: ImageDefinition) -> BuildImage {
    BuildImage { account: AccountId("000000000000".to_owned()), key: ImageKey::new("image-1").unwrap(), definition }
}

/// A pipeline and what it stands on.
struct Bench {
    work: tempfile::TempDir,
    host: Arc<FakeHost>,
    pipeline: Pipeline,
    output: Arc<Mutex<Vec<Output>>>,
}

impl Bench {
    fn new(object: Result<Vec<u8>, FetchError>, host: FakeHost) -> Self {
        let work = tempfile::tempdir().unwrap();
        std::fs::create_dir(work.path().join("image-build-left-by-a-crash")).unwrap();
        let host = Arc::new(host);
        let registries = vec![Registry { name: "docker.io".into(), mirrors: vec![], insecure: false, username: None, password: None }];
        let settings =
            Settings { limits: Limits::default(), registries, work_dir: work.path().to_owned(), build_timeout: Duration::from_secs(60) };
        let source = Arc::new(FakeSource(Mutex::new(Some(object))));
        let pipeline = Pipeline::new(source, Arc::clone(&host) as Arc<dyn Host>, settings).unwrap();
        assert_eq!(std::fs::read_dir(work.path()).unwrap().count(), 0);
        Self { work, host, pipeline, output: Arc::default() }
    }

    async fn build(&self, definition: ImageDefinition) -> Result<BuiltImage, BuildFailure> {
        let output = Arc::clone(&self.output);
        let result = self.pipeline.build(request(definition), Arc::new(move |line| output.lock().unwrap().push(line))).await;
        self.assert_clean();
        if result.is_err() {
            assert!(matches!(self.host.calls.lock().unwrap().last(), Some(&"delete")));
        }
        result
    }

    fn assert_clean(&self) {
        assert_eq!(std::fs::read_dir(self.work.path()).unwrap().count(), 0);
    }
}

fn good() -> Result<Vec<u8>, FetchError> {
    Ok(zip(&[dockerfile(), file("app", b"x")]))
}

async fn failure_of(object: Result<Vec<u8>, FetchError>) -> BuildFailure {
    Bench::new(object, FakeHost::default()).build(definition()).await.unwrap_err()
}

async fn build_failure(error: HostError) -> BuildFailure {
    let host = FakeHost { root_disk: Mutex::new(Some(Err(error))), ..Default::default() };
    Bench::new(good(), host).build(definition()).await.unwrap_err()
}

async fn capture_failure(error: HostError) -> String {
    let host = FakeHost { capture: Mutex::new(Some(Err(error))), ..Default::default() };
    let failure = Bench::new(good(), host).build(definition()).await.unwrap_err();
    assert_eq!(failure.sizes, SnapshotSizes { code_install_bytes: Some(11), ..Default::default() });
    failure.reason
}

fn hook(hook: &'static str, outcome: HookOutcome, seconds: u64) -> HostError {
    HostError::Hook { hook, outcome, timeout: Duration::from_secs(seconds) }
}

#[tokio::test]
async fn an_artifact_becomes_an_image() {
    let bench = Bench::new(good(), FakeHost::default());
    let built = bench.build(definition()).await.unwrap();
    assert_eq!(built.config, config());
    assert_eq!(built.sizes, SnapshotSizes { code_install_bytes: Some(11), memory_bytes: Some(22), disk_bytes: Some(33) });
    let names: Vec<&str> = built.steps.0.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["build.fetch", "build.unpack", "build.run", "build.ready"]);
    assert_eq!(*bench.host.calls.lock().unwrap(), ["delete", "build", "capture"]);

    let asked = bench.host.built.lock().unwrap().take().unwrap();
    assert_eq!((asked.image.as_str(), asked.disk_gib, asked.timeout), ("image-1", 8, Duration::from_secs(60)));
    assert_eq!((asked.environment["MODE"].as_str(), asked.registries[0].name.as_str()), ("test", "docker.io"));
    let asked = bench.host.captured.lock().unwrap().take().unwrap();
    assert_eq!(asked.shape, MachineShape { vcpus: 1, memory_mib: 2048, disk_gib: 8 });
    assert_eq!(asked.container.environment["MODE"], "test");
    assert_eq!((asked.container.config, asked.container.all_capabilities), (config(), false));
    assert_eq!(asked.ready, Some(HookCall { port: 9000, timeout: Duration::from_secs(300) }));
    assert_eq!(asked.validate, None);

    let output = bench.output.lock().unwrap();
    let steps: Vec<&str> =
        output.iter().filter_map(|line| if let Output::Step(name) = line { Some(name.as_str()) } else { None }).collect();
    assert_eq!(steps, ["fetch", "unpack", "build", "capture"]);
    assert!(output.contains(&Output::Line("STEP 1/1: FROM scratch".to_owned())));
}

#[tokio::test]
async fn what_cannot_be_fetched_has_its_code() {
    for (error, reason) in [
        (FetchError::NoSuchBucket, "S3_NO_SUCH_BUCKET: The bucket bucket does not exist."),
        (FetchError::NoSuchKey, "S3_NO_SUCH_KEY: There is no object s3://bucket/app.zip."),
        (FetchError::AccessDenied("Because".into()), "S3_ACCESS_DENIED: Access to s3://bucket/app.zip is denied. Because."),
        (FetchError::TooLarge, "S3_INVALID_OBJECT: The object s3://bucket/app.zip is larger than 1073741824 bytes."),
        (FetchError::InvalidName, "S3_INVALID_OBJECT: s3://bucket/app.zip is not a valid name of an object."),
        (FetchError::Io(std::io::Error::other("x")), "INTERNAL_PLATFORM_ERROR: The host could not copy the artifact; its log says why."),
        (FetchError::Io(std::io::ErrorKind::StorageFull.into()), "DISK_STORAGE_FULL: There is not enough space on the host's disk."),
    ] {
        let failure = failure_of(Err(error)).await;
        assert_eq!((failure.reason.as_str(), failure.sizes), (reason, SnapshotSizes::default()));
    }
}

#[tokio::test]
async fn a_bad_uri_or_definition_is_told() {
    let bench = Bench::new(good(), FakeHost::default());
    let bad = ImageDefinition { code_artifact: CodeArtifact::Uri("https://x".to_owned()), ..definition() };
    let failure = bench.build(bad).await.unwrap_err();
    assert_eq!(failure.reason, "S3_INVALID_OBJECT: The code artifact's URI is not valid: it does not begin with s3://.");
    let mut bad = definition();
    bad.hooks.as_mut().unwrap().port = None;
    let failure = bench.build(bad).await.unwrap_err();
    assert_eq!(failure.reason, "The definition of the image is not valid: the ready hook is enabled and hooks.port is missing.");
}

#[tokio::test]
async fn a_bad_archive_has_its_code() {
    for (bytes, reason) in [
        (b"plain text, not a zip at all".to_vec(), "ARCHIVE_INVALID: not a zip archive: it has no end record."),
        (
            zip(&[dockerfile(), file("../x", b"")]),
            "ARCHIVE_INVALID: \"../x\" cannot be unpacked: its name leads out of the archive (`..`).",
        ),
        (zip(&[file("a", b"")]), "ARCHIVE_DOCKERFILE_NOT_FOUND: the archive has no Dockerfile at its root."),
        (
            zip(&[file("sandbox/Dockerfile", b"")]),
            "ARCHIVE_DOCKERFILE_NOT_FOUND: the archive has no Dockerfile at its root (found sandbox/Dockerfile: zip the folder's contents, not the folder).",
        ),
    ] {
        assert_eq!(failure_of(Ok(bytes)).await.reason, reason);
    }
}

#[tokio::test]
async fn a_failed_container_build_says_where() {
    let tail = vec!["E: Unable to locate package nope".to_owned()];
    let failure = build_failure(HostError::BuildFailed { step: Some("RUN apt-get install nope".to_owned()), tail }).await;
    let reason =
        "CONTAINER_BUILD_FAILED: The container build failed at: RUN apt-get install nope\nLast output:\nE: Unable to locate package nope";
    assert_eq!((failure.reason.as_str(), failure.sizes), (reason, SnapshotSizes::default()));
    let failure = build_failure(HostError::BuildTimedOut { limit: Duration::from_secs(1800) }).await;
    assert_eq!(failure.reason, "CONTAINER_BUILD_FAILED: The container build timed out after PT30M.");
    assert!(build_failure(HostError::DiskFull).await.reason.starts_with("DISK_STORAGE_FULL: "));
}

#[tokio::test]
async fn hooks_fail_in_the_words_of_aws() {
    let answered = |status, body: &str| HookOutcome::Answered { status, body: body.to_owned() };
    for (error, reason) in [
        (hook("ready", HookOutcome::TimedOut, 300), "Ready hook invocation timed out after PT5M"),
        (hook("validate", HookOutcome::TimedOut, 30), "Validate hook invocation timed out after PT30S"),
        (hook("ready", answered(500, " no\n"), 30), "Ready lifecycle hook returned HTTP status 500. The answer was: no"),
        (hook("validate", answered(404, ""), 30), "Validate lifecycle hook returned HTTP status 404."),
        (
            hook("ready", HookOutcome::Unreachable { reason: "connection reset".to_owned() }, 30),
            "Ready lifecycle hook could not be called: connection reset",
        ),
        (
            hook("ready", HookOutcome::ApplicationExited { code: 2 }, 30),
            "The application exited with code 2 before the snapshot could be taken.",
        ),
    ] {
        assert_eq!(capture_failure(error).await, reason);
    }
}

#[tokio::test]
async fn applications_that_do_not_live_are_explained() {
    let reason = capture_failure(HostError::ApplicationExited { code: 3, tail: vec!["boom".to_owned()] }).await;
    assert_eq!(reason, "The application exited with code 3 before the snapshot could be taken.\nLast output:\nboom");
    let reason = capture_failure(HostError::ApplicationNotStarted { reason: "/app: no such file".to_owned() }).await;
    assert_eq!(reason, "The application could not be started: /app: no such file.");
}

#[tokio::test]
async fn faults_of_the_host_stay_in_its_log() {
    let secret = || HostError::internal("open /var/lib/emberbox/x")("cause");
    let text = "INTERNAL_PLATFORM_ERROR: The host could not build the image; its log says why.";
    assert_eq!(capture_failure(secret()).await, text);
    assert_eq!(build_failure(secret()).await.reason, text);
    assert_eq!(capture_failure(HostError::SnapshotRefused("engine".to_owned())).await, text);
}

#[tokio::test]
async fn a_dropped_build_leaves_no_directory() {
    let bench = Bench::new(good(), FakeHost { hang: true, ..Default::default() });
    {
        let building = bench.pipeline.build(request(definition()), Arc::new(|_| {}));
        assert!(tokio::time::timeout(Duration::from_millis(300), building).await.is_err());
    }
    assert!(bench.host.built.lock().unwrap().is_some());
    bench.assert_clean();
}

fn cut_off(cause: EndCause) -> HostError {
    HostError::MachineEnded(ProcessEnd { cause, last_words: "Kernel panic - not syncing: Fatal exception".to_owned() })
}

#[tokio::test]
async fn what_a_machine_that_died_has_undone_is_done_once_more() {
    let host = FakeHost {
        root_disk: Mutex::new(Some(Err(cut_off(EndCause::Code(0))))),
        capture: Mutex::new(Some(Err(cut_off(EndCause::Signal(6))))),
        ..Default::default()
    };
    let bench = Bench::new(good(), host);
    bench.build(definition()).await.unwrap();
    assert_eq!(*bench.host.calls.lock().unwrap(), ["delete", "build", "build", "capture", "capture"]);
    let output = bench.output.lock().unwrap();
    let says = |line: &&Output| matches!(line, Output::Line(line) if line.starts_with("the build was cut off, beginning anew: its virtual machine process "));
    assert_eq!(output.iter().filter(says).count(), 2, "{output:?}");
}

#[tokio::test]
async fn an_image_that_kills_its_machine_again_or_by_its_size_is_given_up() {
    let bench = Bench::new(good(), FakeHost { dies: true, ..Default::default() });
    let reason = bench.build(definition()).await.unwrap_err().reason;
    assert!(
        reason.starts_with("INTERNAL_PLATFORM_ERROR: The build was cut off: its virtual machine process ended with code 0"),
        "{reason}"
    );
    assert_eq!(*bench.host.calls.lock().unwrap(), ["delete", "build", "build", "delete"]);
    for cause in [EndCause::MemoryLimit, EndCause::HostMemory] {
        let bench = Bench::new(good(), FakeHost { root_disk: Mutex::new(Some(Err(cut_off(cause)))), ..Default::default() });
        bench.build(definition()).await.unwrap_err();
        assert_eq!(*bench.host.calls.lock().unwrap(), ["delete", "build", "delete"]);
    }
}
