//! Every failpoint of control, with every action, in the middle of a whole story on a fake host: every wait ends, records and machines agree, and no
//! suspended state is lost. A process of its own, because failpoints are the process's.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use emberbox_control::testing::{FakeBuilder, FakeHost, ManualClock, Parts};
use emberbox_control::{Control, EndpointSettings, failpoints};
use emberbox_failpoints::{Failpoint, arm, disarm_all};
use emberbox_host::{Host, MachineId, MachineStatus};
use emberbox_store::Store;
use emberbox_wire::caller::Caller;
use emberbox_wire::error::ApiError;
use emberbox_wire::ids::{AccountId, MicrovmId};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

const IMAGE: &str = "arn:aws:lambda:us-east-1:123456789012:microvm-image:web";
const PATIENCE: Duration = Duration::from_secs(30);
/// A request that meets a failpoint fails; the point goes off once.
const ATTEMPTS: usize = 4;

/// What outlives a daemon that is killed.
struct World {
    directory: tempfile::TempDir,
    host: Arc<FakeHost>,
    builder: Arc<FakeBuilder>,
    clock: Arc<ManualClock>,
    /// MicroVMs whose termination was asked for.
    ended: Mutex<Vec<MicrovmId>>,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, host: Arc::default(), builder: Arc::default(), clock: Arc::default(), ended: Mutex::default() }
    }

    async fn start(&self) -> Arc<Control> {
        let path = self.directory.path().join("db");
        let new = !path.exists();
        let store = Store::open(&path).await.unwrap();
        if new {
            Parts::prepare(&store).await.unwrap();
        }
        let fakes = Parts::over(store);
        let parts = Parts { host: self.host.clone(), builder: self.builder.clone(), clock: self.clock.clone(), ..fakes };
        parts.start(EndpointSettings::Loopback { port: 8443 }).await.unwrap()
    }
}

async fn call(control: &Control, operation: &str, input: Value) -> Result<Value, ApiError> {
    let account = AccountId("123456789012".into());
    control.call(&Caller::root(account, "AKIAROOT"), operation, input).await
}

/// A client that tries again.
async fn insist(control: &Control, operation: &str, input: Value) -> Option<Value> {
    for _ in 0..ATTEMPTS {
        match call(control, operation, input.clone()).await {
            Ok(answer) => return Some(answer),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    None
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until its state is none that ends by itself.
async fn settled(control: &Control, id: MicrovmId) -> String {
    let state = async || call(control, "GetMicrovm", json!({"microvmIdentifier": id})).await.unwrap()["state"].as_str().unwrap().to_owned();
    until(&format!("{id} is settled"), async || ["RUNNING", "SUSPENDED", "TERMINATED"].contains(&state().await.as_str())).await;
    state().await
}

async fn image_settled(control: &Control) -> Option<String> {
    let state = async || {
        let image = call(control, "GetMicrovmImage", json!({"imageIdentifier": IMAGE})).await.ok()?;
        image["state"].as_str().map(str::to_owned)
    };
    until("the image is settled", async || state().await.is_none_or(|state| !state.ends_with("ING"))).await;
    state().await
}

fn definition(members: Value) -> Value {
    let mut request = json!({
        "baseImageArn": "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1", "buildRoleArn": "arn:aws:iam::123456789012:role/build",
        "codeArtifact": {"uri": "s3://bucket/key.zip"}, "hooks": {"port": 9000, "microvmHooks": {"suspend": "ENABLED"}},
    });
    request.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    request
}

/// Everything that can be asked for, in order, by a client that does not give up.
async fn story(world: &World, control: &Control) {
    insist(control, "CreateMicrovmImage", definition(json!({"name": "web"}))).await;
    while matches!(image_settled(control).await.as_deref(), Some("CREATE_FAILED" | "UPDATE_FAILED")) {
        insist(control, "UpdateMicrovmImage", definition(json!({"imageIdentifier": IMAGE}))).await;
    }
    let run = json!({"imageIdentifier": IMAGE, "idlePolicy": {"maxIdleDurationSeconds": 600, "suspendedDurationSeconds": 600, "autoResumeEnabled": true}});
    for _ in 0..2 {
        let Some(answer) = insist(control, "RunMicrovm", run.clone()).await else { continue };
        let id: MicrovmId = answer["microvmId"].as_str().unwrap().parse().unwrap();
        settled(control, id).await;
        let identified = json!({"microvmIdentifier": id});
        for operation in ["SuspendMicrovm", "ResumeMicrovm", "SuspendMicrovm"] {
            insist(control, operation, identified.clone()).await;
            settled(control, id).await;
        }
        world.ended.lock().unwrap().push(id);
        insist(control, "TerminateMicrovm", identified).await;
        settled(control, id).await;
    }
    insist(control, "UpdateMicrovmImage", definition(json!({"imageIdentifier": IMAGE}))).await;
    image_settled(control).await;
    insist(control, "DeleteMicrovmImageVersion", json!({"imageIdentifier": IMAGE, "imageVersion": "1.0"})).await;
    let version = json!({"imageIdentifier": IMAGE, "imageVersion": "1.0"});
    until("the version is settled", async || {
        call(control, "GetMicrovmImageVersion", version.clone()).await.map_or(true, |version| version["state"] != "DELETING")
    })
    .await;
    insist(control, "DeleteMicrovmImage", json!({"imageIdentifier": IMAGE})).await;
    image_settled(control).await;
}

/// Records and machines agree, in the end.
async fn check(world: &World, control: &Control) {
    let listed = call(control, "ListMicrovms", json!({})).await.unwrap();
    let mut machines: HashMap<MachineId, MachineStatus> = HashMap::new();
    let mut expected = HashMap::new();
    for item in listed["items"].as_array().unwrap() {
        let id: MicrovmId = item["microvmId"].as_str().unwrap().parse().unwrap();
        match settled(control, id).await.as_str() {
            "RUNNING" => drop(expected.insert(MachineId(id.0), MachineStatus::Running)),
            "SUSPENDED" => drop(expected.insert(MachineId(id.0), MachineStatus::Suspended)),
            _ => {}
        }
    }
    until("records and machines agree", async || {
        world.host.inventory().await.unwrap().into_iter().map(|machine| (machine.machine, machine.status)).collect::<HashMap<_, _>>()
            == expected
    })
    .await;
    machines.extend(expected);
    assert_eq!(world.host.overlaps(), 0);
    image_settled(control).await;
    for machine in machines.into_keys() {
        insist(control, "TerminateMicrovm", json!({"microvmIdentifier": MicrovmId(machine.0)})).await;
        assert_eq!(settled(control, MicrovmId(machine.0)).await, "TERMINATED");
    }
    until("nothing is left", async || world.host.inventory().await.unwrap().is_empty()).await;
}

/// The story with `point` armed; the daemon lives through it.
fn lived_through(point: &'static Failpoint, action: &str) {
    let world = World::new();
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let control = world.start().await;
        arm(failpoints::ALL, &format!("{}={action}", point.name())).unwrap();
        tokio::time::timeout(PATIENCE, story(&world, &control))
            .await
            .unwrap_or_else(|_| panic!("{} {action}: the story does not end", point.name()));
        assert!(!point.is_armed(), "{} was never reached", point.name());
        check(&world, &control).await;
        control.shutdown().await;
    });
}

/// The daemon dies at `point`, as by kill -9: what it was doing stops there, and another one starts.
fn died_at(point: &'static Failpoint) {
    let world = World::new();
    let killed = Runtime::new().unwrap();
    killed.block_on(async {
        let control = world.start().await;
        // Nothing goes on beyond the point; the rest of the daemon ends with its runtime.
        arm(failpoints::ALL, &format!("{}=hang", point.name())).unwrap();
        tokio::select! {
            () = story(&world, &control) => {}
            () = until("the point is reached", async || !point.is_armed()) => {}
        }
        assert!(!point.is_armed(), "{} was never reached", point.name());
    });
    killed.shutdown_background();
    world.host.forget_calls();
    let before: HashMap<MachineId, MachineStatus> = Runtime::new()
        .unwrap()
        .block_on(world.host.inventory())
        .unwrap()
        .into_iter()
        .map(|machine| (machine.machine, machine.status))
        .collect();
    Runtime::new().unwrap().block_on(async {
        let control = world.start().await;
        for (machine, status) in before {
            let id = MicrovmId(machine.0);
            let ended = world.ended.lock().unwrap().contains(&id);
            let state = settled(&control, id).await;
            assert!(
                status != MachineStatus::Suspended || ended || state == "SUSPENDED",
                "{}: a suspended state was lost: {state}",
                point.name()
            );
        }
        check(&world, &control).await;
        control.shutdown().await;
    });
}

#[test]
fn every_point_with_every_action() {
    for point in failpoints::ALL {
        for action in ["error", "delay(20)", "panic"] {
            lived_through(point, action);
        }
        died_at(point);
        disarm_all(failpoints::ALL);
    }
}
