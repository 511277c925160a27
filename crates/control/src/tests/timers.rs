use std::time::Duration;

use serde_json::{Value, json};

use super::{World, eventually};
use crate::testing::HostCall;
use crate::traffic::Traffic;

fn policy(suspended: u32) -> Value {
    json!({"idlePolicy": {"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": suspended, "autoResumeEnabled": true}})
}

impl World {
    fn pass(&self, seconds: u64) {
        self.parts.clock.advance(Duration::from_secs(seconds));
        self.control.poke();
    }
}

/// Long enough for a poked reconciler to have done what it would.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

#[tokio::test]
async fn an_idle_microvm_is_suspended_and_later_terminated() {
    let world = World::with_image().await;
    let id = world.running(policy(300)).await;
    world.pass(59);
    settle().await;
    assert_eq!(world.get(id).await["state"], "RUNNING");
    world.control.touch(id);
    world.pass(59);
    settle().await;
    assert_eq!(world.get(id).await["state"], "RUNNING", "traffic starts the idle clock anew");
    world.pass(1);
    world.state(id, "SUSPENDED").await;
    assert_eq!(world.get(id).await["stateReason"], "Suspended by the idle policy after 60 seconds without traffic");
    world.pass(299);
    settle().await;
    assert_eq!(world.get(id).await["state"], "SUSPENDED");
    world.pass(1);
    world.state(id, "TERMINATED").await;
    assert_eq!(world.get(id).await["stateReason"], "Terminated by the idle policy after 300 seconds suspended");
}

#[tokio::test]
async fn zero_suspended_seconds_terminate_at_once() {
    let world = World::with_image().await;
    let id = world.running(policy(0)).await;
    world.pass(60);
    world.state(id, "TERMINATED").await;
    assert_eq!(world.parts.host.count(HostCall::Suspend), 0);
}

#[tokio::test]
async fn a_woken_microvm_begins_a_new_idle_time() {
    let world = World::with_image().await;
    let id = world.running(policy(300)).await;
    world.pass(60);
    world.state(id, "SUSPENDED").await;
    world.pass(200);
    world.control.connect(id, 80).await.unwrap();
    world.pass(59);
    settle().await;
    assert_eq!(world.get(id).await["state"], "RUNNING");
    world.pass(1);
    world.state(id, "SUSPENDED").await;
}

#[tokio::test]
async fn without_a_policy_only_the_maximum_duration_ends_it() {
    let world = World::with_image().await;
    let running = world.running(json!({"maximumDurationInSeconds": 1000})).await;
    let suspended = world.running(json!({"maximumDurationInSeconds": 1000})).await;
    world.change("SuspendMicrovm", suspended).await;
    world.state(suspended, "SUSPENDED").await;
    world.pass(999);
    settle().await;
    assert_eq!(world.get(running).await["state"], "RUNNING");
    world.pass(1);
    for id in [running, suspended] {
        world.state(id, "TERMINATED").await;
        assert_eq!(world.get(id).await["stateReason"], "Maximum duration of 1000 seconds reached");
    }
}

#[tokio::test]
async fn a_launch_that_hangs_past_the_maximum_is_terminated_when_it_ends() {
    let world = World::with_image().await;
    world.parts.host.hold(HostCall::Launch);
    let id = world.run(json!({"maximumDurationInSeconds": 5})).await;
    world.pass(5);
    eventually("terminating", async || world.get(id).await["state"] == "TERMINATING").await;
    world.parts.host.release(HostCall::Launch);
    world.state(id, "TERMINATED").await;
}
