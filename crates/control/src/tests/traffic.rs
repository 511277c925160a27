use std::net::Ipv4Addr;

use emberbox_host::{GuestStream, HostError};
use emberbox_wire::ids::MicrovmId;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::World;
use crate::testing::HostCall;
use crate::traffic::{EndpointName, Traffic, TrafficError};

fn policy(auto_resume: bool) -> Value {
    json!({"idlePolicy": {"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 600, "autoResumeEnabled": auto_resume}})
}

async fn hello(stream: Result<Box<dyn GuestStream>, TrafficError>) -> String {
    let mut text = String::new();
    stream.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

async fn suspended(world: &World, auto_resume: bool) -> MicrovmId {
    let id = world.running(policy(auto_resume)).await;
    world.change("SuspendMicrovm", id).await;
    world.state(id, "SUSPENDED").await;
    id
}

async fn refusal(world: &World, id: MicrovmId) -> TrafficError {
    world.control.connect(id, 80).await.err().unwrap()
}

#[tokio::test]
async fn an_endpoint_is_found_by_its_address_for_ever() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    let address: Ipv4Addr = world.get(id).await["endpoint"].as_str().unwrap().split(':').next().unwrap().parse().unwrap();
    let name = EndpointName::Address(address);
    assert_eq!(world.control.locate(&name).await, Some(id));
    world.change("TerminateMicrovm", id).await;
    world.state(id, "TERMINATED").await;
    assert_eq!(world.control.locate(&name).await, Some(id));
    assert!(matches!(refusal(&world, id).await, TrafficError::NotRunning(_)));
    assert_eq!(world.control.locate(&EndpointName::Address(Ipv4Addr::new(127, 0, 0, 1))).await, None);
    assert_eq!(world.control.locate(&EndpointName::Label("x".into())).await, None);
}

#[tokio::test]
async fn a_request_during_pending_waits() {
    let world = World::with_image().await;
    world.parts.host.hold(HostCall::Launch);
    let id = world.run(json!({})).await;
    let (text, ()) = tokio::join!(async { hello(world.control.connect(id, 80).await).await }, async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        world.parts.host.release(HostCall::Launch);
    });
    assert_eq!(text, "hello 80");
    assert_eq!(world.control.connect(id, 1).await.err(), Some(TrafficError::Refused));
}

#[tokio::test]
async fn a_storm_of_requests_shares_one_wake() {
    let world = World::with_image().await;
    let id = suspended(&world, true).await;
    let requests = (0..200).map(|_| async { hello(world.control.connect(id, 8080).await).await });
    for text in futures::future::join_all(requests).await {
        assert_eq!(text, "hello 8080");
    }
    assert_eq!(world.parts.host.count(HostCall::Resume), 1);
}

#[tokio::test]
async fn a_request_while_it_is_being_suspended_wakes_it_after() {
    let world = World::with_image().await;
    let id = world.running(policy(true)).await;
    world.parts.host.hold(HostCall::Suspend);
    world.change("SuspendMicrovm", id).await;
    let (text, ()) = tokio::join!(async { hello(world.control.connect(id, 80).await).await }, async {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        world.parts.host.release(HostCall::Suspend);
    });
    assert_eq!(text, "hello 80");
}

#[tokio::test]
async fn without_auto_resume_it_sleeps_on() {
    let world = World::with_image().await;
    let id = suspended(&world, false).await;
    assert!(matches!(refusal(&world, id).await, TrafficError::NotRunning(_)));
    assert_eq!(world.parts.host.count(HostCall::Resume), 0);
}

#[tokio::test]
async fn a_wake_that_fails_fails_its_requests_and_the_next_one_tries_again() {
    let world = World::with_image().await;
    let id = suspended(&world, true).await;
    world.parts.host.fail(HostCall::Resume, || HostError::SnapshotRefused("other CPU".into()));
    assert!(matches!(refusal(&world, id).await, TrafficError::Unreachable(reason) if reason.contains("other CPU")));
    assert_eq!(hello(world.control.connect(id, 80).await).await, "hello 80");
}

#[tokio::test]
async fn a_machine_that_is_gone_is_no_machine_to_wake() {
    let world = World::with_image().await;
    let id = suspended(&world, true).await;
    world.parts.host.forget(World::machine(id));
    assert!(matches!(refusal(&world, id).await, TrafficError::NotRunning(_)));
    world.state(id, "TERMINATED").await;
}
