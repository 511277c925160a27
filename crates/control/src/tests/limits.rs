//! Quotas, memory and rates, through the operations.

use std::time::Duration;

use emberbox_host::HostError;
use emberbox_wire::error::ErrorCode;
use serde_json::{Value, json};

use super::{ARN, World, caller, definition, eventually, with};
use crate::limits::Rate;
use crate::testing::HostCall;
use crate::traffic::{Traffic, TrafficError};

/// Of the image `web`, which asks for no size.
const BASELINE: u64 = 2048;

#[tokio::test]
async fn an_accounts_memory_is_a_quota() {
    let world = World::limited_with_image(|limits| limits.quotas.memory_mib = Some(2 * BASELINE)).await;
    let first = world.running(json!({})).await;
    world.running(json!({})).await;
    let refused = world.call("RunMicrovm", json!({"imageIdentifier": ARN})).await.unwrap_err();
    assert_eq!((refused.code, refused.code.status()), (ErrorCode::ServiceQuotaExceeded, 402));
    assert_eq!(refused.message, "The base maximum allocated memory limit has been reached for this account.");
    for member in ["resourceId", "resourceType", "serviceCode", "quotaCode"] {
        assert!(refused.members[member].is_string(), "{member}");
    }
    world.change("SuspendMicrovm", first).await;
    world.state(first, "SUSPENDED").await;
    let third = world.running(json!({})).await;
    let resumed = world.call("ResumeMicrovm", json!({"microvmIdentifier": first})).await.unwrap_err();
    assert_eq!((resumed.code, &resumed.members["retryAfterSeconds"]), (ErrorCode::Throttling, &json!(5)));
    assert_eq!(world.get(first).await["state"], "SUSPENDED");
    world.change("TerminateMicrovm", third).await;
    world.state(third, "TERMINATED").await;
    world.change("ResumeMicrovm", first).await;
    world.state(first, "RUNNING").await;
}

#[tokio::test]
async fn a_host_is_never_oversold_by_launches_wakes_and_builds() {
    // Room for a build (4096), or two MicroVMs.
    let world = World::limited_with_image(|limits| limits.host_memory_mib = 4096).await;
    let first = world
        .running(json!({"idlePolicy": {"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 600, "autoResumeEnabled": true}}))
        .await;
    let second = world.running(json!({})).await;
    let refused = world.refused("RunMicrovm", json!({"imageIdentifier": ARN})).await;
    assert_eq!(refused.0, ErrorCode::InsufficientCapacity);
    world.ok("CreateMicrovmImage", with(definition(), json!({"name": "waits"}))).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.parts.builder.requests().len(), 1, "a build waits for memory");
    world.change("SuspendMicrovm", first).await;
    world.state(first, "SUSPENDED").await;
    let third = world.running(json!({})).await;
    let refused = world.control.connect(first, 80).await.err().unwrap();
    assert!(matches!(&refused, TrafficError::Unreachable(reason) if reason.contains("memory")), "{refused:?}: a wake is admitted too");
    for id in [second, third] {
        world.change("TerminateMicrovm", id).await;
        world.state(id, "TERMINATED").await;
    }
    eventually("built", async || {
        let image = json!({"imageIdentifier": ARN.replace("web", "waits")});
        world.ok("GetMicrovmImage", image).await["state"] == "CREATED"
    })
    .await;
    assert!(world.control.connect(first, 80).await.is_ok());
}

#[tokio::test]
async fn what_the_host_is_short_of_is_said_at_the_call_and_nothing_is_begun() {
    let world = World::with_image().await;
    let run = || world.call("RunMicrovm", json!({"imageIdentifier": ARN, "clientToken": "again"}));
    let refused = |error: emberbox_wire::error::ApiError| {
        assert_eq!((error.code, error.code.status()), (ErrorCode::InsufficientCapacity, 500));
        error.message
    };
    world.parts.host.fail(HostCall::Room, || HostError::Exhausted("file descriptors"));
    assert_eq!(refused(run().await.unwrap_err()), "HOST_EXHAUSTED: launch failed: the host is out of file descriptors. Retry later.");
    world.parts.host.fail(HostCall::Room, || HostError::DiskFull);
    assert!(refused(run().await.unwrap_err()).starts_with("DISK_STORAGE_FULL: "));
    world.parts.host.memory_available(3);
    assert_eq!(refused(run().await.unwrap_err()), "HOST_EXHAUSTED: the host is out of memory: 3 % of it is available. Retry later.");
    assert_eq!(world.ok("ListMicrovms", json!({})).await["items"], json!([]));
    // The same call, client token and all. What is no shortage is the launch's to find out.
    world.parts.host.memory_available(50);
    world.parts.host.fail(HostCall::Room, || HostError::internal("look")("nobody knows"));
    let id = run().await.unwrap()["microvmId"].as_str().unwrap().parse().unwrap();
    world.state(id, "RUNNING").await;
}

#[tokio::test]
async fn a_build_that_never_fits_fails() {
    let world = World::limited(|limits| limits.host_memory_mib = 2048).await;
    world.ok("CreateMicrovmImage", with(definition(), json!({"name": "web"}))).await;
    world.image_state("CREATE_FAILED").await;
    let version = world.ok("GetMicrovmImageVersion", json!({"imageIdentifier": ARN, "imageVersion": "1.0"})).await;
    assert!(version["stateReason"].as_str().unwrap().contains("more than the 2048 MiB this host may hold"));
}

#[tokio::test]
async fn the_last_place_is_taken_once_by_many() {
    let world = World::limited_with_image(|limits| limits.quotas.microvms = Some(3)).await;
    let launches = (0..30).map(|_| world.call("RunMicrovm", json!({"imageIdentifier": ARN})));
    let answers = futures::future::join_all(launches).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    assert!(answers.iter().flat_map(|answer| answer.as_ref().err()).all(|error| error.code == ErrorCode::ServiceQuotaExceeded));
}

#[tokio::test]
async fn a_launch_that_fails_gives_its_memory_back() {
    let world = World::limited_with_image(|limits| limits.host_memory_mib = 4096).await;
    for _ in 0..3 {
        for _ in 0..2 {
            world.parts.host.fail(HostCall::Launch, || HostError::DiskFull);
        }
        for _ in 0..2 {
            let id = world.run(json!({})).await;
            world.state(id, "TERMINATED").await;
        }
    }
}

#[tokio::test]
async fn images_and_versions_are_quotas() {
    let world = World::limited_with_image(|limits| (limits.quotas.images, limits.quotas.versions_per_image) = (1, 2)).await;
    let over = world.call("CreateMicrovmImage", with(definition(), json!({"name": "other"}))).await.unwrap_err();
    assert_eq!((over.code, &over.members["quotaCode"]), (ErrorCode::ServiceQuotaExceeded, &json!("quotas.images")));
    let update = with(definition(), json!({"imageIdentifier": ARN}));
    world.ok("UpdateMicrovmImage", update.clone()).await;
    world.image_state("UPDATED").await;
    assert_eq!(world.refused("UpdateMicrovmImage", update.clone()).await.0, ErrorCode::ServiceQuotaExceeded);
    world.ok("DeleteMicrovmImageVersion", json!({"imageIdentifier": ARN, "imageVersion": "1.0"})).await;
    eventually("room", async || world.call("UpdateMicrovmImage", update.clone()).await.is_ok()).await;
}

#[tokio::test]
async fn rates_are_each_accounts_and_each_groups() {
    let world = World::limited_with_image(|limits| limits.rates.run = Rate { per_second: 0.5, burst: 2 }).await;
    let run = |who: &'static str| {
        let control = world.control.clone();
        async move { control.call(&caller(who), "RunMicrovm", json!({"imageIdentifier": ARN})).await }
    };
    run("123456789012").await.unwrap();
    run("123456789012").await.unwrap();
    let throttled = run("123456789012").await.unwrap_err();
    assert_eq!((throttled.code, throttled.message.as_str()), (ErrorCode::Throttling, "Rate exceeded"));
    let expected = json!({"retryAfterSeconds": 2, "serviceCode": "lambda", "quotaCode": "rates.run", "Reason": "CallerRateLimitExceeded"});
    assert_eq!(Value::Object(throttled.members), expected);
    assert_eq!(run("999999999999").await.unwrap_err().code, ErrorCode::ResourceNotFound, "another account is not throttled");
    world.ok("ListMicrovms", json!({})).await;
    world.parts.clock.advance(Duration::from_secs(2));
    run("123456789012").await.unwrap();
}
