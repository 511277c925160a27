//! Several clients at once. In whatever order their requests come: every written change follows an arrow of the model, no answer is the service's fault,
//! no record is lost, and what lists show and what gets show is the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use emberbox_host::HostError;
use emberbox_wire::error::ErrorCode;
use emberbox_wire::ids::MicrovmId;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{check, may_be_seen_after};
use super::{NAMES, Step, arn, list, runtime, steps, version_of};
use crate::testing::HostCall;
use crate::tests::{World, definition, eventually, with};
use crate::traffic::Traffic;

/// What the clients share: the service, and the MicroVMs that were made.
struct Together {
    world: World,
    microvms: Mutex<Vec<MicrovmId>>,
}

/// One client, with what it has seen so far.
struct Client<'t> {
    together: &'t Together,
    seen: BTreeMap<String, String>,
}

impl Client<'_> {
    async fn step(&mut self, step: Step) {
        let world = &self.together.world;
        match step {
            Step::CreateImage(image) => {
                self.call("CreateMicrovmImage", with(definition(), json!({"name": NAMES[image]})), &[ErrorCode::Validation]).await;
            }
            Step::UpdateImage(image) => {
                let request = with(definition(), json!({"imageIdentifier": arn(image)}));
                self.call("UpdateMicrovmImage", request, &[ErrorCode::ResourceNotFound, ErrorCode::Conflict]).await;
            }
            Step::DeleteImage(image) => {
                let allowed = [ErrorCode::ResourceNotFound, ErrorCode::Conflict, ErrorCode::Validation];
                self.call("DeleteMicrovmImage", json!({"imageIdentifier": arn(image)}), &allowed).await;
            }
            Step::DeleteVersion(image, version) => {
                let allowed = [ErrorCode::ResourceNotFound, ErrorCode::Conflict];
                self.call("DeleteMicrovmImageVersion", version_of(image, version), &allowed).await;
            }
            Step::SetVersion(image, version, active) => {
                let request = with(version_of(image, version), json!({"status": if active { "ACTIVE" } else { "INACTIVE" }}));
                self.call("UpdateMicrovmImageVersion", request, &[ErrorCode::ResourceNotFound, ErrorCode::Conflict]).await;
            }
            Step::Run(image) => self.run(image).await,
            Step::Suspend(place) => self.change("SuspendMicrovm", place).await,
            Step::Resume(place) => self.change("ResumeMicrovm", place).await,
            Step::Terminate(place) => self.change("TerminateMicrovm", place).await,
            Step::Traffic(place) => {
                if let Some(id) = self.at(place) {
                    drop(world.control.connect(id, 80).await);
                }
            }
            Step::Look => self.look().await,
            // An image that cannot be deleted would stay, and there is no way to say when it is not to fail any more.
            Step::Fail(HostCall::DeleteImage) => {}
            Step::Fail(call) => world.parts.host.fail(call, || HostError::DiskFull),
            Step::FailBuilds(fail) => {
                let failure = crate::image_builder::BuildFailure { reason: "no".into(), sizes: Default::default() };
                world.parts.builder.fail(fail.then_some(failure));
            }
        }
    }

    async fn call(&self, operation: &str, request: Value, allowed: &[ErrorCode]) -> Option<Value> {
        match self.together.world.call(operation, request).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                assert!(allowed.contains(&error.code), "{operation}: {error:?}");
                None
            }
        }
    }

    fn at(&self, place: usize) -> Option<MicrovmId> {
        let microvms = self.together.microvms.lock().unwrap();
        (!microvms.is_empty()).then(|| microvms[place % microvms.len()])
    }

    async fn run(&mut self, image: usize) {
        let policy = json!({"maxIdleDurationSeconds": 600, "suspendedDurationSeconds": 600, "autoResumeEnabled": true});
        let request = json!({"imageIdentifier": arn(image), "idlePolicy": policy});
        if let Some(answer) = self.call("RunMicrovm", request, &[ErrorCode::ResourceNotFound]).await {
            let id: MicrovmId = answer["microvmId"].as_str().unwrap().parse().unwrap();
            self.together.microvms.lock().unwrap().push(id);
            self.see(&id.to_string(), &answer["state"]);
        }
    }

    async fn change(&mut self, operation: &str, place: usize) {
        let Some(id) = self.at(place) else { return };
        let allowed: &[ErrorCode] = if operation == "TerminateMicrovm" { &[] } else { &[ErrorCode::Conflict] };
        let done = self.call(operation, json!({"microvmIdentifier": id}), allowed).await.is_some();
        let state = self.together.world.get(id).await["state"].clone();
        if done && operation == "TerminateMicrovm" {
            assert!(state == "TERMINATING" || state == "TERMINATED", "it is on record: {state}");
        }
        self.see(&id.to_string(), &state);
    }

    fn see(&mut self, id: &str, state: &Value) {
        let state = state.as_str().unwrap().to_owned();
        if let Some(before) = self.seen.insert(id.to_owned(), state.clone()) {
            assert!(may_be_seen_after(&before, &state), "{id} was {before} and is {state}");
        }
    }

    async fn look(&mut self) {
        let made: BTreeSet<String> = self.together.microvms.lock().unwrap().iter().map(MicrovmId::to_string).collect();
        let listed = list(&self.together.world, "ListMicrovms", &json!({}), 3).await;
        let ids: Vec<_> = listed.iter().map(|item| item["microvmId"].as_str().unwrap().to_owned()).collect();
        let distinct: BTreeSet<String> = ids.iter().cloned().collect();
        assert_eq!(distinct.len(), ids.len(), "each is listed once, whatever is made meanwhile");
        assert!(made.is_subset(&distinct), "what was there before is listed: {made:?} {distinct:?}");
        for item in listed {
            self.see(item["microvmId"].as_str().unwrap(), &item["state"]);
        }
    }
}

impl Together {
    /// What is under way ends, and everything that was made is there, once, and the same to whoever looks.
    async fn ends(&self) {
        let world = &self.world;
        let made = self.microvms.lock().unwrap().clone();
        for id in &made {
            world.change("TerminateMicrovm", *id).await;
            world.state(*id, "TERMINATED").await;
            assert_eq!(world.parts.host.status(World::machine(*id)), None, "nothing of it is left");
        }
        eventually("no build or deletion is under way", async || {
            let images = list(world, "ListMicrovmImages", &json!({}), 50).await;
            images.iter().all(|image| !image["state"].as_str().unwrap().ends_with("ING"))
        })
        .await;
        let listed = list(world, "ListMicrovms", &json!({}), 2).await;
        let ids: BTreeSet<String> = listed.iter().map(|item| item["microvmId"].as_str().unwrap().to_owned()).collect();
        assert_eq!(ids, made.iter().map(MicrovmId::to_string).collect(), "none is lost, none is new");
        for item in &listed {
            let got = world.ok("GetMicrovm", json!({"microvmIdentifier": item["microvmId"]})).await;
            agree(item, &got);
        }
        for item in list(world, "ListMicrovmImages", &json!({}), 1).await {
            let subject = json!({"imageIdentifier": item["imageArn"]});
            agree(&item, &world.ok("GetMicrovmImage", subject.clone()).await);
            for version in list(world, "ListMicrovmImageVersions", &subject, 1).await {
                let subject = with(subject.clone(), json!({"imageVersion": version["imageVersion"]}));
                agree(&version, &world.ok("GetMicrovmImageVersion", subject.clone()).await);
                let [build] = &list(world, "ListMicrovmImageBuilds", &subject, 1).await[..] else { panic!("one build of each version") };
                agree(build, &world.ok("GetMicrovmImageBuild", with(subject, json!({"buildId": build["buildId"]}))).await);
            }
        }
        let changes = world.parts.store.state_changes().await.unwrap();
        changes.iter().for_each(check);
        assert_eq!(world.parts.host.overlaps(), 0);
        assert!(world.control.core().microvms.all().is_empty());
    }
}

/// What a list shows of something, a get shows, too.
fn agree(listed: &Value, got: &Value) {
    for (name, value) in listed.as_object().unwrap() {
        assert_eq!(&got[name], value, "{name}");
    }
}

async fn tell(scripts: Vec<Vec<Step>>) {
    let together = Together { world: World::new().await, microvms: Mutex::default() };
    together.world.parts.store.watch_states().await.unwrap();
    let clients = scripts.into_iter().map(|steps| {
        let mut client = Client { together: &together, seen: BTreeMap::new() };
        async move {
            for step in steps {
                client.step(step).await;
            }
        }
    });
    futures::future::join_all(clients).await;
    together.world.parts.builder.fail(None);
    together.ends().await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn clients_at_once_break_nothing(scripts in proptest::collection::vec(steps(5..25), 2..6)) {
        runtime().block_on(tell(scripts));
    }
}
