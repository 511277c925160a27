//! One client, who waits for each thing to be done: the model foretells every answer and every state.

use emberbox_host::HostError;
use emberbox_store::Phase;
use emberbox_wire::error::ErrorCode;
use emberbox_wire::ids::MicrovmId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{Rest, check};
use super::{NAMES, Step, arn, list, runtime, steps, version_of};
use crate::testing::HostCall;
use crate::tests::{World, definition, eventually, with};
use crate::traffic::Traffic;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Active,
    Inactive,
    Failed,
    Deleted,
}

/// An image with all versions it ever had.
#[derive(Debug, Clone, Default)]
struct Image {
    versions: Vec<Version>,
    deleted: bool,
}

impl Image {
    fn remaining(&self) -> usize {
        self.versions.iter().filter(|version| **version != Version::Deleted).count()
    }

    fn latest_active(&self) -> Option<u32> {
        self.versions.iter().rposition(|version| *version == Version::Active).map(|index| index as u32 + 1)
    }
}

#[derive(Debug)]
struct Microvm {
    id: MicrovmId,
    image: usize,
    version: u32,
    rest: Rest,
}

/// The service as its documentation has it, and the real one beside it.
struct Alone {
    world: World,
    images: [Option<Image>; NAMES.len()],
    microvms: Vec<Microvm>,
    faults: Vec<HostCall>,
    builds_fail: bool,
}

type Answer = Result<Value, ErrorCode>;

impl Alone {
    async fn new() -> Self {
        let world = World::new().await;
        world.parts.store.watch_states().await.unwrap();
        Self { world, images: [None, None], microvms: Vec::new(), faults: Vec::new(), builds_fail: false }
    }

    async fn call(&self, operation: &str, input: Value) -> Answer {
        self.world.call(operation, input).await.map_err(|error| error.code)
    }

    /// Whether the next call of this kind fails; then it has failed.
    fn fails(&mut self, call: HostCall) -> bool {
        self.faults.iter().position(|fault| *fault == call).map(|index| self.faults.remove(index)).is_some()
    }

    fn image(&self, image: usize) -> Option<&Image> {
        self.images[image].as_ref().filter(|found| !found.deleted)
    }

    fn lives(&self, image: usize, version: Option<u32>) -> bool {
        let of = |microvm: &&Microvm| microvm.image == image && version.is_none_or(|version| version == microvm.version);
        self.microvms.iter().filter(of).any(|microvm| microvm.rest != Rest::Terminated)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::CreateImage(image) => self.create(image).await,
            Step::UpdateImage(image) => self.update(image).await,
            Step::DeleteImage(image) => self.delete(image).await,
            Step::DeleteVersion(image, version) => self.delete_version(image, version).await,
            Step::SetVersion(image, version, active) => self.set_version(image, version, active).await,
            Step::Run(image) => self.run(image).await,
            Step::Suspend(place) | Step::Resume(place) | Step::Terminate(place) | Step::Traffic(place) => {
                if !self.microvms.is_empty() {
                    self.change(step, place % self.microvms.len()).await;
                }
            }
            Step::Look => self.look().await,
            // The images of this client are always deleted.
            Step::Fail(HostCall::DeleteImage) => {}
            Step::Fail(call) => {
                self.world.parts.host.fail(call, || HostError::DiskFull);
                self.faults.push(call);
            }
            Step::FailBuilds(fail) => {
                self.builds_fail = fail;
                let failure = crate::image_builder::BuildFailure { reason: "no".into(), sizes: Default::default() };
                self.world.parts.builder.fail(fail.then_some(failure));
            }
        }
    }

    fn built(&self) -> Version {
        if self.builds_fail { Version::Failed } else { Version::Active }
    }

    async fn create(&mut self, image: usize) {
        let answer = self.call("CreateMicrovmImage", with(definition(), json!({"name": NAMES[image]}))).await;
        if self.image(image).is_some() {
            return assert_eq!(answer, Err(ErrorCode::Validation));
        }
        assert_eq!(answer.unwrap()["imageVersion"], "1.0");
        self.images[image] = Some(Image { versions: vec![self.built()], deleted: false });
        self.settles(image, if self.builds_fail { "CREATE_FAILED" } else { "CREATED" }).await;
    }

    async fn update(&mut self, image: usize) {
        let answer = self.call("UpdateMicrovmImage", with(definition(), json!({"imageIdentifier": arn(image)}))).await;
        if self.image(image).is_none() {
            return assert_eq!(answer, Err(ErrorCode::ResourceNotFound));
        }
        let built = self.built();
        let found = self.images[image].as_mut().unwrap();
        found.versions.push(built);
        assert_eq!(answer.unwrap()["imageVersion"], format!("{}.0", found.versions.len()));
        self.settles(image, if self.builds_fail { "UPDATE_FAILED" } else { "UPDATED" }).await;
    }

    async fn settles(&self, image: usize, state: &str) {
        eventually(&format!("{} is {state}", NAMES[image]), async || {
            self.call("GetMicrovmImage", json!({"imageIdentifier": arn(image)})).await.is_ok_and(|found| found["state"] == state)
        })
        .await;
    }

    async fn delete(&mut self, image: usize) {
        let answer = self.call("DeleteMicrovmImage", json!({"imageIdentifier": arn(image)})).await;
        let lives = self.lives(image, None);
        match &mut self.images[image] {
            None => assert_eq!(answer, Err(ErrorCode::ResourceNotFound)),
            Some(found) if found.deleted => assert_eq!(answer.unwrap()["state"], "DELETED"),
            Some(_) if lives => assert!(matches!(answer, Err(ErrorCode::Conflict | ErrorCode::Validation)), "{answer:?}"),
            Some(found) => {
                assert_eq!(answer.unwrap()["state"], "DELETING");
                found.deleted = true;
                found.versions.fill(Version::Deleted);
                eventually("the image is gone", async || {
                    self.call("GetMicrovmImage", json!({"imageIdentifier": arn(image)})).await == Err(ErrorCode::ResourceNotFound)
                })
                .await;
            }
        }
    }

    async fn delete_version(&mut self, image: usize, version: u32) {
        let answer = self.call("DeleteMicrovmImageVersion", version_of(image, version)).await;
        let lives = self.lives(image, Some(version));
        let remaining = self.images[image].as_ref().map_or(0, Image::remaining);
        match self.images[image].as_mut().and_then(|found| found.versions.get_mut(version as usize - 1)) {
            None => assert_eq!(answer, Err(ErrorCode::ResourceNotFound)),
            Some(Version::Deleted) => assert_eq!(answer.unwrap()["state"], "DELETED"),
            Some(_) if lives || remaining == 1 => assert_eq!(answer, Err(ErrorCode::Conflict)),
            Some(found) => {
                *found = Version::Deleted;
                assert_eq!(answer.unwrap()["state"], "DELETING");
                eventually("the version is gone", async || self.call("GetMicrovmImageVersion", version_of(image, version)).await.is_err())
                    .await;
            }
        }
    }

    async fn set_version(&mut self, image: usize, version: u32, active: bool) {
        let status = if active { "ACTIVE" } else { "INACTIVE" };
        let answer = self.call("UpdateMicrovmImageVersion", with(version_of(image, version), json!({"status": status}))).await;
        let deleted = self.image(image).is_none();
        match self.images[image].as_mut().filter(|_| !deleted).and_then(|found| found.versions.get_mut(version as usize - 1)) {
            None | Some(Version::Deleted) => assert_eq!(answer, Err(ErrorCode::ResourceNotFound)),
            Some(Version::Failed) if active => assert_eq!(answer, Err(ErrorCode::Conflict)),
            Some(Version::Failed) => assert_eq!(answer.unwrap()["status"], status),
            Some(found) => {
                *found = if active { Version::Active } else { Version::Inactive };
                assert_eq!(answer.unwrap()["status"], status);
            }
        }
    }

    async fn run(&mut self, image: usize) {
        let policy = json!({"maxIdleDurationSeconds": 600, "suspendedDurationSeconds": 600, "autoResumeEnabled": true});
        let answer = self.call("RunMicrovm", json!({"imageIdentifier": arn(image), "idlePolicy": policy})).await;
        let Some(version) = self.image(image).and_then(Image::latest_active) else {
            return assert_eq!(answer, Err(ErrorCode::ResourceNotFound));
        };
        let answer = answer.unwrap();
        assert_eq!((&answer["state"], &answer["imageVersion"]), (&json!("PENDING"), &json!(format!("{version}.0"))));
        let rest = if self.fails(HostCall::Launch) { Rest::Terminated } else { Rest::Running };
        let id = answer["microvmId"].as_str().unwrap().parse().unwrap();
        self.rests(id, rest).await;
        self.microvms.push(Microvm { id, image, version, rest });
    }

    async fn change(&mut self, step: Step, place: usize) {
        let (id, before) = (self.microvms[place].id, self.microvms[place].rest);
        let request = json!({"microvmIdentifier": id});
        let expected = match step {
            Step::Suspend(_) => before.suspended(before == Rest::Running && self.fails(HostCall::Suspend)),
            Step::Resume(_) | Step::Traffic(_) => before.resumed(before == Rest::Suspended && self.fails(HostCall::Resume)),
            _ => Some(Rest::Terminated),
        };
        let answer = match step {
            Step::Suspend(_) => self.call("SuspendMicrovm", request).await,
            Step::Resume(_) => self.call("ResumeMicrovm", request).await,
            Step::Traffic(_) => {
                let connected = self.world.control.connect(id, 80).await.is_ok();
                assert_eq!(connected, expected == Some(Rest::Running), "{before:?}");
                Ok(json!({}))
            }
            _ => self.call("TerminateMicrovm", request).await,
        };
        match (expected, step) {
            (Some(_), _) | (None, Step::Traffic(_)) => assert_eq!(answer, Ok(json!({}))),
            (None, _) => assert_eq!(answer, Err(ErrorCode::Conflict)),
        }
        self.microvms[place].rest = expected.unwrap_or(before);
        self.rests(id, expected.unwrap_or(before)).await;
    }

    /// Waits for what is under way, and looks where it led.
    async fn rests(&self, id: MicrovmId, rest: Rest) {
        let phase = async || self.world.parts.store.microvm(id).await.unwrap().unwrap().phase;
        eventually(&format!("{id} rests"), async || matches!(phase().await, Phase::Running | Phase::Suspended | Phase::Terminated)).await;
        assert_eq!(self.world.get(id).await["state"], rest.word());
    }

    /// Lists, gets and the model say the same.
    async fn look(&self) {
        let listed = list(&self.world, "ListMicrovms", &json!({}), 2).await;
        let found: Vec<_> =
            listed.iter().map(|item| (item["microvmId"].clone(), item["state"].clone(), item["imageVersion"].clone())).collect();
        let known = |microvm: &Microvm| (json!(microvm.id), json!(microvm.rest.word()), json!(format!("{}.0", microvm.version)));
        assert_eq!(found, self.microvms.iter().rev().map(known).collect::<Vec<_>>(), "newest first");
        let there = (0..NAMES.len()).filter(|image| self.image(*image).is_some()).count();
        assert_eq!(list(&self.world, "ListMicrovmImages", &json!({}), 1).await.len(), there);
        for image in 0..NAMES.len() {
            let Some(found) = self.image(image) else { continue };
            let versions = list(&self.world, "ListMicrovmImageVersions", &json!({"imageIdentifier": arn(image)}), 2).await;
            let shown: Vec<_> = versions.iter().map(|version| (version["imageVersion"].clone(), version["status"] == "ACTIVE")).collect();
            let known = found.versions.iter().enumerate().rev().filter(|(_, version)| **version != Version::Deleted);
            assert_eq!(
                shown,
                known.map(|(index, version)| (json!(format!("{}.0", index + 1)), *version == Version::Active)).collect::<Vec<_>>()
            );
        }
    }
}

async fn tell(steps: Vec<Step>) {
    let mut alone = Alone::new().await;
    for step in steps {
        alone.step(step).await;
    }
    alone.look().await;
    alone.world.parts.store.state_changes().await.unwrap().iter().for_each(check);
    assert_eq!(alone.world.parts.host.overlaps(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, max_shrink_iters: 500, ..ProptestConfig::default() })]

    #[test]
    fn one_client_sees_what_the_model_foretells(steps in steps(1..30)) {
        runtime().block_on(tell(steps));
    }
}
