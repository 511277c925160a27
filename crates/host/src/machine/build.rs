//! Build: execute a Dockerfile with buildah inside a fresh builder machine, and export the result as the image's root disk.
//!
//! The Dockerfile and its context are hostile: nothing of them is executed or parsed on the host. They go in as a read-only disk, and the file
//! system comes out as a disk that the builder has written; the host reads neither.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use emberbox_agent_protocol::{Command, Disk, LogLine, Reply, Request};
use serde::Deserialize;

use super::boot::{BootSpec, Booted, boot};
use super::capture::remember;
use super::{caught, remove};
use crate::agent::AgentError;
use crate::engine::{DiskFormat, VmDisk};
use crate::layout::occupied_bytes;
use crate::local::{LocalHost, remove_directory};
use crate::steps::Steps;
use crate::{BUILDER_MEMORY_MIB, BuildRootDisk, ContainerConfig, HostError, MachineShape, Output, OutputSink, RootDisk, disk, failpoints};

/// The script that the builder runs, the same for every image.
const SCRIPT: &str = include_str!("build.sh");
/// Of the builder's own disk.
const DISK_GIB: u32 = 24;
/// What a small build takes on the host's disk: the builder's memory that it uses, its changes, the image's root. A larger one that fills the disk is told so then.
const BUILD_BYTES: u64 = 1 << 30;
/// Lines that the script marks as its own, on standard output.
const STEP_MARK: &str = "@emberbox-step ";
const IMAGE_MARK: &str = "@emberbox-image ";
const EXPORT: &str = "export";
/// The script's steps in their order.
const STEPS: [&str; 2] = ["dockerfile", EXPORT];
/// Labels and history make descriptions long; this is longer than any registry takes.
const MAX_DESCRIPTION_BYTES: usize = 4 * 1024 * 1024;
/// Mounted where no image keeps anything, beside the system's bundle: replacing that in place would break the installation of ca-certificates.
const CA_PATH: &str = "/run/emberbox/ca.pem";
/// Variables by which common tools find a CA bundle.
const CA_VARIABLES: [&str; 7] =
    ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO"];
/// The build's deadline is kept by the agent; this is for an agent that does not answer.
const GRACE: Duration = Duration::from_secs(30);

pub(crate) async fn build_root_disk(host: &Arc<LocalHost>, request: BuildRootDisk, output: OutputSink) -> Result<RootDisk, HostError> {
    let image = host.layout.image(&request.image);
    let work = host.layout.work().join(format!("build-{}", request.image));
    let space = host.space.promise(BUILD_BYTES)?;
    let outcome = caught(build_steps(host, &request, &work, &image.root_disk(), &output)).await;
    drop(space);
    // Before anything is deleted: what is free then tells nothing.
    let outcome = outcome.map_err(|error| host.space.explain(error));
    let cleaned = remove(&work, "remove a build's files").await;
    if outcome.is_err() {
        remove(&image.0, "remove a failed build").await?;
    }
    cleaned?;
    outcome
}

async fn build_steps(
    host: &Arc<LocalHost>,
    request: &BuildRootDisk,
    work: &Path,
    root_disk: &Path,
    output: &OutputSink,
) -> Result<RootDisk, HostError> {
    let mut steps = Steps::start();
    output(Output::Step("starting a builder".into()));
    let disks = prepare(host, request, work, root_disk).await?;
    steps.mark("prepare");
    failpoints::BUILD_PREPARE.pass().await?;
    let spec =
        BootSpec { shape: shape(host.engine.runs_cpus_in_parallel()), disks, memory: work.join("memory"), directory: work.to_path_buf() };
    let booted = boot(host, spec).await?;
    steps.mark("boot");
    let built = caught(run_script(host, request, &booted, output, &mut steps)).await;
    // What the builder wrote must be on its disk before the process ends.
    let synced = match &built {
        Ok(_) => booted.vm.pause().await.map_err(HostError::from),
        Err(_) => Ok(()),
    };
    booted.end().await;
    synced?;
    let config = built?;
    steps.mark("end");
    failpoints::BUILD_END.pass().await?;
    let used_bytes = occupied_bytes(root_disk).map_err(HostError::internal("measure the root disk"))?;
    Ok(RootDisk { config, used_bytes, steps: steps.finish() })
}

/// Memory for buildah and for a compiler, for instance. Two vCPUs halve a build's time and more do not help it, but two that take turns only have a kernel that
/// waits for itself.
fn shape(in_parallel: bool) -> MachineShape {
    MachineShape { vcpus: if in_parallel { 2 } else { 1 }, memory_mib: BUILDER_MEMORY_MIB, disk_gib: DISK_GIB }
}

/// The builder's disks: its own root, the context, and the blank disk that becomes the image's root.
async fn prepare(host: &LocalHost, request: &BuildRootDisk, work: &Path, root_disk: &Path) -> Result<Vec<VmDisk>, HostError> {
    let failed = HostError::internal;
    let image_directory = root_disk.parent().map(Path::to_path_buf).unwrap_or_default();
    remove_directory(work)
        .and_then(|()| remove_directory(&image_directory))
        .and_then(|()| std::fs::create_dir(work))
        .and_then(|()| std::fs::create_dir(&image_directory))
        .and_then(|()| disk::create_blank(root_disk, u64::from(request.disk_gib) << 30))
        .map_err(failed("prepare a build"))?;
    let (overlay, context) = (work.join("builder.qcow2"), work.join("context.ext4"));
    let builder = host.base.builder_disk();
    disk::create_overlay(&overlay, &builder, DiskFormat::Raw, u64::from(DISK_GIB) << 30).await?;
    let (bytes, entries) = measure(&request.context).map_err(failed("measure the build context"))?;
    disk::create_from_directory(&context, &request.context, disk::size_for(bytes, entries)).await?;
    let open = |layers: &[(&Path, DiskFormat)], read_only| disk::open_layers(layers, read_only).map_err(failed("open a build's disks"));
    Ok(vec![
        VmDisk {
            serial: "builder",
            read_only: false,
            layers: open(&[(&*overlay, DiskFormat::Qcow2), (&*builder, DiskFormat::Raw)], false)?,
        },
        VmDisk { serial: "context", read_only: true, layers: open(&[(&*context, DiskFormat::Raw)], true)? },
        VmDisk { serial: "root", read_only: false, layers: open(&[(root_disk, DiskFormat::Raw)], false)? },
    ])
}

/// Bytes and entries below a directory; links are not followed.
fn measure(directory: &Path) -> std::io::Result<(u64, u64)> {
    let (mut bytes, mut entries, mut left) = (0, 0, vec![PathBuf::from(directory)]);
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            entries += 1;
            match metadata.is_dir() {
                true => left.push(entry.path()),
                false => bytes += metadata.len().next_multiple_of(4096),
            }
        }
    }
    Ok((bytes, entries))
}

/// Runs the script and follows what it prints.
async fn run_script(
    host: &LocalHost,
    request: &BuildRootDisk,
    booted: &Booted,
    output: &OutputSink,
    steps: &mut Steps,
) -> Result<ContainerConfig, HostError> {
    failpoints::BUILD_BOOT.pass().await?;
    let command = Command {
        root_disk: "builder".into(),
        mounts: BTreeMap::from([("/context".to_owned(), Disk { serial: "context".into(), read_only: true })]),
        argv: vec!["/bin/bash".into(), "/run/emberbox/build.sh".into()],
        environment: BTreeMap::new(),
        working_directory: "/".into(),
        timeout_ms: u64::try_from(request.timeout.as_millis()).unwrap_or(u64::MAX),
        files: files(host, request),
    };
    let script = tokio::time::timeout(request.timeout + GRACE, follow(booted, command, output, steps));
    script.await.unwrap_or(Err(HostError::BuildTimedOut { limit: request.timeout }))
}

async fn follow(booted: &Booted, command: Command, output: &OutputSink, steps: &mut Steps) -> Result<ContainerConfig, HostError> {
    let limit = Duration::from_millis(command.timeout_ms);
    let started = tokio::time::Instant::now();
    let mut exchange = booted.agent.send(Request::Run(command)).await?;
    let mut seen = Seen::default();
    loop {
        match exchange.next().await? {
            Reply::Log(LogLine { text, .. }) => seen.line(text, output, steps),
            Reply::Exited { code: 0 } => {
                steps.mark(seen.step.unwrap_or("script"));
                failpoints::BUILD_SCRIPT.pass().await?;
                return seen.config();
            }
            Reply::Exited { .. } if started.elapsed() >= limit => return Err(HostError::BuildTimedOut { limit }),
            Reply::Exited { .. } => return Err(seen.failure()),
            _ => return Err(AgentError::Unexpected.into()),
        }
    }
}

/// What `buildah inspect --type image` says, as far as it matters here.
#[derive(Deserialize)]
struct Description {
    #[serde(rename = "OCIv1")]
    oci: OciImage,
}

#[derive(Deserialize)]
struct OciImage {
    #[serde(default)]
    config: ContainerConfig,
}

/// What the script has printed so far.
#[derive(Default)]
struct Seen {
    /// The script's step that runs.
    step: Option<&'static str>,
    /// The Dockerfile's instruction that runs, as buildah announces it.
    instruction: Option<String>,
    tail: Vec<String>,
    /// What buildah says of the image, put together from its parts.
    description: String,
}

impl Seen {
    fn line(&mut self, text: String, output: &OutputSink, steps: &mut Steps) {
        // The Dockerfile's programs print what they like: each step begins once and in its order, and the description comes in the last.
        let next = STEPS.iter().position(|step| self.step == Some(step)).map_or(0, |now| now + 1);
        if let Some(step) = STEPS.get(next).filter(|step| text.strip_prefix(STEP_MARK) == Some(step)) {
            if let Some(done) = self.step.replace(step) {
                steps.mark(done);
            }
            return output(Output::Step((*step).to_owned()));
        }
        if let Some(part) = text.strip_prefix(IMAGE_MARK).filter(|_| self.step == Some(EXPORT)) {
            if self.description.len() < MAX_DESCRIPTION_BYTES {
                self.description.push_str(part);
            }
            return;
        }
        if text.starts_with("STEP ") {
            self.instruction = Some(text.clone());
        }
        output(Output::Line(text.clone()));
        remember(&mut self.tail, text);
    }

    fn config(self) -> Result<ContainerConfig, HostError> {
        let malformed = HostError::internal("read the built image's configuration");
        let description: Description = serde_json::from_str(&self.description).map_err(malformed)?;
        let mut config = description.oci.config;
        // Variables that only the build needed to find its CA bundle are no part of the image.
        let ours = |pair: &String| pair.split_once('=').is_some_and(|(name, value)| CA_VARIABLES.contains(&name) && value == CA_PATH);
        config.env.get_or_insert_default().retain(|pair| !ours(pair));
        Ok(config)
    }

    fn failure(self) -> HostError {
        HostError::BuildFailed { step: self.instruction, tail: self.tail }
    }
}

/// What the script finds in the builder: itself, the variables of the image, registries, credentials, certificates.
fn files(host: &LocalHost, request: &BuildRootDisk) -> BTreeMap<String, String> {
    let lines = |pairs: &mut dyn Iterator<Item = String>| pairs.fold(String::new(), |text, pair| text + &pair + "\0");
    let mut environment: Vec<String> = request.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut files = BTreeMap::from([("/run/emberbox/build.sh".to_owned(), SCRIPT.to_owned())]);
    if !host.extra_ca_pem.is_empty() {
        files.insert("/run/emberbox/extra-ca.pem".into(), host.extra_ca_pem.clone());
        environment
            .extend(CA_VARIABLES.iter().filter(|name| !request.environment.contains_key(**name)).map(|name| format!("{name}={CA_PATH}")));
    }
    files.insert("/run/emberbox/environment".into(), lines(&mut environment.into_iter()));
    if !request.registries.is_empty() {
        files.insert("/etc/containers/registries.conf.d/50-emberbox.conf".into(), registries(request));
        files.insert("/run/emberbox/auth.json".into(), credentials(request));
    }
    files
}

/// containers-registries.conf(5), version 2.
fn registries(request: &BuildRootDisk) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut text = String::new();
    for registry in &request.registries {
        text += &format!("[[registry]]\nprefix = {0}\nlocation = {0}\ninsecure = {1}\n", quoted(&registry.name), registry.insecure);
        for mirror in &registry.mirrors {
            text += &format!("[[registry.mirror]]\nlocation = {}\ninsecure = {}\n", quoted(mirror), registry.insecure);
        }
    }
    text
}

/// containers-auth.json(5).
fn credentials(request: &BuildRootDisk) -> String {
    use base64::Engine as _;
    let mut auths = serde_json::Map::new();
    for registry in &request.registries {
        if let (Some(username), Some(password)) = (&registry.username, &registry.password) {
            let auth = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
            for name in std::iter::once(&registry.name).chain(&registry.mirrors) {
                auths.insert(name.clone(), serde_json::json!({"auth": auth}));
            }
        }
    }
    serde_json::json!({"auths": auths}).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{ImageKey, Registry, StepTimings};

    fn nowhere() -> OutputSink {
        Arc::new(|_| {})
    }

    fn seen(lines: &[&str]) -> (Seen, StepTimings) {
        let (mut seen, mut steps) = (Seen::default(), Steps::start());
        lines.iter().for_each(|line| seen.line((*line).to_owned(), &nowhere(), &mut steps));
        (seen, steps.finish())
    }

    #[test]
    fn a_failure_names_the_instruction_and_the_last_lines() {
        let (seen, _) = seen(&["@emberbox-step dockerfile", "STEP 1/2: FROM x", "STEP 2/2: RUN false", "boom"]);
        let HostError::BuildFailed { step, tail } = seen.failure() else { panic!("another error") };
        assert_eq!(step.as_deref(), Some("STEP 2/2: RUN false"));
        assert_eq!(tail.last().map(String::as_str), Some("boom"));
    }

    #[test]
    fn steps_are_timed_and_the_configuration_is_read_without_what_the_build_added() {
        let config = r#"@emberbox-image {"OCIv1":{"config":{"Entrypoint":["/a"],"Env":["A=1","PIP_CERT=/run/emberbox/ca.pem","SSL_CERT_FILE=/own"]}}}"#;
        let (seen, steps) = seen(&["@emberbox-step dockerfile", "@emberbox-step export", config]);
        assert_eq!(steps.0.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["dockerfile"]);
        let config = seen.config().unwrap();
        assert_eq!(config.env.unwrap(), ["A=1", "SSL_CERT_FILE=/own"]);
    }

    #[test]
    fn registries_and_credentials_are_written_in_the_forms_buildah_reads() {
        let registry = Registry {
            name: "docker.io".into(),
            mirrors: vec!["mirror.example".into()],
            insecure: false,
            username: Some("u".into()),
            password: Some("p\"q".into()),
        };
        let request = BuildRootDisk {
            image: ImageKey::new("i").unwrap(),
            context: PathBuf::new(),
            environment: BTreeMap::new(),
            registries: vec![registry],
            disk_gib: 8,
            timeout: Duration::from_secs(1),
        };
        assert!(registries(&request).contains("[[registry.mirror]]\nlocation = \"mirror.example\""));
        let auth: serde_json::Value = serde_json::from_str(&credentials(&request)).unwrap();
        assert_eq!(auth["auths"]["docker.io"]["auth"], "dTpwInE=");
    }
}
