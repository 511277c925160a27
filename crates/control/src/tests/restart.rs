use emberbox_host::{MachineId, MachineStatus};
use emberbox_store::Phase;
use emberbox_wire::ids::MicrovmId;
use serde_json::json;
use uuid::Uuid;

use super::{ARN, World, definition, eventually, with};
use crate::config::EndpointSettings;
use crate::testing::HostCall;
use crate::traffic::{EndpointName, Traffic};

/// A daemon that died with a MicroVM in `phase` and whose host has it in `status` starts again.
async fn after_crash(phase: Phase, status: Option<MachineStatus>) -> (World, MicrovmId) {
    let mut world = World::with_image().await;
    let id = world.running(json!({})).await;
    world.control.shutdown().await;
    let mut record = world.parts.store.microvm(id).await.unwrap().unwrap();
    record.phase = phase;
    world.parts.store.update_microvm(&record).await.unwrap();
    match status {
        Some(status) => world.parts.host.put(World::machine(id), status),
        None => world.parts.host.forget(World::machine(id)),
    }
    world.control = world.parts.start(EndpointSettings::Loopback { port: 8443 }).await.unwrap();
    (world, id)
}

#[tokio::test]
async fn every_phase_and_every_machine_come_to_an_agreement() {
    use MachineStatus::{Lost, Running, Suspended};
    for phase in [Phase::Launching, Phase::Running, Phase::Suspending, Phase::Suspended, Phase::Resuming, Phase::Terminating] {
        for status in [None, Some(Running), Some(Suspended), Some(Lost)] {
            let expected = match (phase, status) {
                (Phase::Launching | Phase::Terminating, _) | (_, None | Some(Lost)) => "TERMINATED",
                (Phase::Suspending, Some(Running)) | (_, Some(Suspended)) => "SUSPENDED",
                (_, Some(Running)) => "RUNNING",
            };
            let (world, id) = after_crash(phase, status).await;
            world.state(id, expected).await;
            let left = world.parts.host.status(World::machine(id));
            match expected {
                "TERMINATED" => assert_eq!(left, None, "{phase:?} {status:?}"),
                "SUSPENDED" => assert_eq!(left, Some(Suspended), "{phase:?} {status:?}"),
                _ => assert_eq!(left, Some(Running), "{phase:?} {status:?}"),
            }
            let got = world.get(id).await;
            let explained = phase == Phase::Terminating || expected != "TERMINATED" || got["stateReason"].is_string();
            assert!(explained, "{phase:?} {status:?}");
            world.change("TerminateMicrovm", id).await;
            world.state(id, "TERMINATED").await;
            world.control.shutdown().await;
        }
    }
}

#[tokio::test]
async fn running_and_suspended_microvms_are_known_again() {
    let mut world = World::with_image().await;
    let running = world.running(json!({})).await;
    let suspended = world.running(json!({})).await;
    world.change("SuspendMicrovm", suspended).await;
    world.state(suspended, "SUSPENDED").await;
    let endpoint = world.get(running).await["endpoint"].clone();
    world.restart().await;
    assert_eq!(world.get(running).await["endpoint"], endpoint);
    let address = endpoint.as_str().unwrap().split(':').next().unwrap().parse().unwrap();
    assert_eq!(world.control.locate(&EndpointName::Address(address)).await, Some(running));
    world.control.connect(running, 80).await.unwrap();
    world.change("ResumeMicrovm", suspended).await;
    world.state(suspended, "RUNNING").await;
    assert_eq!(world.parts.host.count(HostCall::Stop), 0);
}

#[tokio::test]
async fn a_machine_nobody_owns_is_stopped() {
    let mut world = World::with_image().await;
    let stray = MachineId(Uuid::new_v4());
    world.parts.host.put(stray, MachineStatus::Running);
    world.restart().await;
    eventually("stopped", async || world.parts.host.status(stray).is_none()).await;
}

#[tokio::test]
async fn a_build_cut_off_has_failed_and_a_waiting_one_waits_again() {
    let mut world = World::new().await;
    world.parts.builder.hold(true);
    for name in ["one", "two", "web"] {
        world.ok("CreateMicrovmImage", with(definition(), json!({"name": name}))).await;
    }
    eventually("two begun", async || world.parts.builder.requests().len() == 2).await;
    let begun = world.parts.builder.requests();
    world.restart().await;
    world.parts.builder.hold(false);
    let mut failed = 0;
    for name in ["one", "two", "web"] {
        let arn = ARN.replace("web", name);
        eventually("settled", async || {
            let image = world.ok("GetMicrovmImage", json!({"imageIdentifier": arn})).await;
            image["state"] == "CREATED" || image["state"] == "CREATE_FAILED"
        })
        .await;
        let version = world.ok("GetMicrovmImageVersion", json!({"imageIdentifier": arn, "imageVersion": "1.0"})).await;
        if version["state"] == "FAILED" {
            failed += 1;
            assert!(version["stateReason"].as_str().unwrap().starts_with("INTERNAL_PLATFORM_ERROR: the daemon restarted"));
        }
    }
    assert_eq!((begun.len(), failed), (2, 2));
    assert_eq!(world.parts.host.count(HostCall::DeleteImage), 2);
}

#[tokio::test]
async fn client_tokens_page_tokens_and_keys_survive() {
    let mut world = World::with_image().await;
    let request = json!({"imageIdentifier": ARN, "clientToken": "t"});
    let first = world.ok("RunMicrovm", request.clone()).await;
    world.running(json!({})).await;
    let page = world.ok("ListMicrovms", json!({"maxResults": 1})).await;
    let key = world.control.first_access_key().await.unwrap();
    world.restart().await;
    assert_eq!(world.ok("RunMicrovm", request).await, first);
    let next = world.ok("ListMicrovms", json!({"maxResults": 1, "nextToken": page["nextToken"]})).await;
    assert_eq!(next["items"][0]["microvmId"], first["microvmId"]);
    assert_eq!(world.control.access().access_key(&key.id, None).await.unwrap(), key);
}
