use std::time::Duration;

use emberbox_agent_protocol::HookOutcome;
use emberbox_host::{HostError, MachineStatus};
use emberbox_wire::error::ErrorCode;
use serde_json::{Value, json};

use super::{ARN, World, caller, definition, eventually, with};
use crate::config::EndpointSettings;
use crate::testing::HostCall;

fn hook_failed(hook: &'static str, outcome: HookOutcome) -> HostError {
    HostError::Hook { hook, outcome, timeout: Duration::from_secs(1) }
}

#[tokio::test]
async fn the_life_of_a_microvm() {
    let world = World::with_image().await;
    let id = world.run(json!({"runHookPayload": "secret", "executionRoleArn": "arn:aws:iam::123456789012:role/run"})).await;
    world.state(id, "RUNNING").await;
    let got = world.get(id).await;
    assert!(got["endpoint"].as_str().unwrap().starts_with("127.") && got["endpoint"].as_str().unwrap().ends_with(":8443"));
    assert_eq!(got["maximumDurationInSeconds"], 28_800);
    assert_eq!(
        got["ingressNetworkConnectors"],
        json!(["arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:HTTP_INGRESS"])
    );
    assert!(!got.to_string().contains("secret"));
    let launch = &world.parts.host.launches()[0];
    assert_eq!(launch.run.as_ref().unwrap().1.as_deref(), Some("secret"));
    assert_eq!(launch.name, id.to_string());

    world.change("SuspendMicrovm", id).await;
    world.state(id, "SUSPENDED").await;
    world.change("SuspendMicrovm", id).await;
    world.change("ResumeMicrovm", id).await;
    world.state(id, "RUNNING").await;
    world.change("ResumeMicrovm", id).await;
    world.change("TerminateMicrovm", id).await;
    world.state(id, "TERMINATED").await;
    world.change("TerminateMicrovm", id).await;
    assert!(world.get(id).await["terminatedAt"].is_number());
    assert!(world.parts.host.stops()[0].terminate.is_some());
    for operation in ["SuspendMicrovm", "ResumeMicrovm"] {
        let (code, message) = world.refused(operation, json!({"microvmIdentifier": id})).await;
        assert_eq!(code, ErrorCode::Conflict);
        assert_eq!(message, format!("MicroVM {id} has been terminated and its state cannot be changed."));
    }
    let listed = world.ok("ListMicrovms", json!({"imageIdentifier": ARN, "imageVersion": "1.0"})).await;
    assert_eq!(listed["items"][0]["state"], "TERMINATED");
    assert_eq!(world.ok("ListMicrovms", json!({"imageVersion": "2.0"})).await, json!({"items": []}));
    assert_eq!(world.parts.host.overlaps(), 0);
}

#[tokio::test]
async fn timings_name_the_steps_and_the_daemons_share() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    eventually("timings", async || {
        let timings = world.control.timings(&id).await.unwrap().unwrap();
        let names: Vec<&str> = timings["launch"]["steps"].as_array().into_iter().flatten().filter_map(|s| s["name"].as_str()).collect();
        names == ["admission", "record_written", "queue_wait", "outcome_written", "restore"] && timings["launch"]["daemon_ms"].is_number()
    })
    .await;
}

#[tokio::test]
async fn a_failed_launch_says_why_in_awss_words() {
    let world = World::with_image().await;
    let cases: [(HostError, &str); 3] = [
        (
            hook_failed("run", HookOutcome::Answered { status: 400, body: "no".into() }),
            "Run lifecycle hook returned HTTP status 400. The answer was: no",
        ),
        (hook_failed("run", HookOutcome::TimedOut), "Run hook invocation timed out after PT1S"),
        (HostError::DiskFull, "DISK_STORAGE_FULL: launch failed: not enough space on the host's disk"),
    ];
    for (fault, reason) in cases {
        world.parts.host.fail(HostCall::Launch, move || fault);
        let id = world.run(json!({})).await;
        world.state(id, "TERMINATED").await;
        assert_eq!(world.get(id).await["stateReason"], reason);
        assert!(world.parts.host.stops().last().unwrap().terminate.is_none(), "there is no application to tell");
    }
}

#[tokio::test]
async fn a_refused_suspend_leaves_it_running_and_a_refused_resume_suspended() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    world.parts.host.fail(HostCall::Suspend, || hook_failed("suspend", HookOutcome::Answered { status: 503, body: String::new() }));
    world.change("SuspendMicrovm", id).await;
    eventually("back", async || {
        let got = world.get(id).await;
        got["state"] == "RUNNING" && got["stateReason"] == "Suspend lifecycle hook returned HTTP status 503."
    })
    .await;
    world.change("SuspendMicrovm", id).await;
    world.state(id, "SUSPENDED").await;
    world.parts.host.fail(HostCall::Resume, || HostError::SnapshotRefused("other CPU".into()));
    world.change("ResumeMicrovm", id).await;
    eventually("reason", async || world.get(id).await["stateReason"].is_string()).await;
    assert_eq!(world.get(id).await["state"], "SUSPENDED");
    world.change("ResumeMicrovm", id).await;
    world.state(id, "RUNNING").await;
    assert_eq!(world.get(id).await.get("stateReason"), None);
}

#[tokio::test]
async fn a_failed_resume_hook_ends_the_microvm_and_says_why() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    world.change("SuspendMicrovm", id).await;
    world.state(id, "SUSPENDED").await;
    world.parts.host.fail(HostCall::Resume, || hook_failed("resume", HookOutcome::TimedOut));
    world.change("ResumeMicrovm", id).await;
    world.state(id, "TERMINATED").await;
    assert_eq!(world.get(id).await["stateReason"], "Resume hook invocation timed out after PT1S");
}

#[tokio::test]
async fn a_panicking_host_terminates_nothing_else() {
    let world = World::with_image().await;
    world.parts.host.fail(HostCall::Launch, || panic!("a fault of the host's"));
    let id = world.run(json!({})).await;
    world.state(id, "TERMINATED").await;
    world.running(json!({})).await;
}

#[tokio::test]
async fn terminate_during_launch_waits_it_out() {
    let world = World::with_image().await;
    world.parts.host.hold(HostCall::Launch);
    let id = world.run(json!({})).await;
    for operation in ["SuspendMicrovm", "ResumeMicrovm"] {
        assert_eq!(world.refused(operation, json!({"microvmIdentifier": id})).await.0, ErrorCode::Conflict);
    }
    world.change("TerminateMicrovm", id).await;
    assert_eq!(world.get(id).await["state"], "TERMINATING");
    assert_eq!(world.parts.host.count(HostCall::Stop), 0);
    world.parts.host.release(HostCall::Launch);
    world.state(id, "TERMINATED").await;
    assert_eq!((world.parts.host.overlaps(), world.parts.host.status(World::machine(id))), (0, None));
}

#[tokio::test]
async fn two_suspends_are_one_and_a_resume_meanwhile_is_a_conflict() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    world.parts.host.hold(HostCall::Suspend);
    let suspend = || world.change("SuspendMicrovm", id);
    tokio::join!(suspend(), suspend(), suspend());
    assert_eq!(world.get(id).await["state"], "SUSPENDING");
    let (code, message) = world.refused("ResumeMicrovm", json!({"microvmIdentifier": id})).await;
    assert_eq!((code, message.contains("SUSPENDING")), (ErrorCode::Conflict, true));
    world.parts.host.release(HostCall::Suspend);
    world.state(id, "SUSPENDED").await;
    assert_eq!(world.parts.host.count(HostCall::Suspend), 1);
}

#[tokio::test]
async fn an_unasked_end_terminates_with_its_reason() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    world.parts.host.exit(World::machine(id), "signal 9");
    world.state(id, "TERMINATED").await;
    assert_eq!(
        world.get(id).await["stateReason"],
        "The MicroVM ended unexpectedly: its virtual machine process ended\nLast output:\nsignal 9"
    );
    assert_eq!(world.parts.host.status(World::machine(id)), None);
}

#[tokio::test]
async fn an_end_heard_before_its_launch_was_is_not_lost() {
    let world = World::with_image().await;
    world.parts.host.hold(HostCall::Launch);
    let id = world.run(json!({})).await;
    world.parts.host.exit(World::machine(id), "at once");
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.parts.host.release(HostCall::Launch);
    world.state(id, "TERMINATED").await;
    assert_eq!(
        world.get(id).await["stateReason"],
        "The MicroVM ended unexpectedly: its virtual machine process ended\nLast output:\nat once"
    );
}

#[tokio::test]
async fn a_failing_stop_is_tried_again() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    world.parts.host.fail(HostCall::Stop, || HostError::DiskFull);
    world.change("TerminateMicrovm", id).await;
    world.state(id, "TERMINATED").await;
    assert_eq!(world.parts.host.count(HostCall::Stop), 2);
    assert_eq!(world.parts.host.stops().iter().filter(|stop| stop.terminate.is_some()).count(), 1);
}

#[tokio::test]
async fn what_a_failed_stop_left_is_swept_and_a_builds_machine_is_not() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    world.change("TerminateMicrovm", id).await;
    world.state(id, "TERMINATED").await;
    let (left, living, builds) =
        (World::machine(id), World::machine(world.running(json!({})).await), emberbox_host::MachineId(uuid::Uuid::new_v4()));
    world.parts.host.put(left, MachineStatus::Lost);
    world.parts.host.put(builds, MachineStatus::Running);
    crate::reconcile::orphans::sweep(world.control.core(), &mut Default::default()).await;
    let status = |machine| world.parts.host.status(machine);
    assert_eq!((status(left), status(living), status(builds)), (None, Some(MachineStatus::Running), Some(MachineStatus::Running)));
}

#[tokio::test]
async fn a_client_token_makes_one_microvm() {
    let world = World::with_image().await;
    let request = json!({"imageIdentifier": ARN, "clientToken": "t", "runHookPayload": "p"});
    let run = || world.call("RunMicrovm", request.clone());
    let (first, second, third) = tokio::join!(run(), run(), run());
    let first: Value = first.unwrap();
    assert_eq!((&first, &first), (&second.unwrap(), &third.unwrap()));
    assert_eq!(world.parts.host.launches().len(), 1);
    let other = with(request.clone(), json!({"runHookPayload": "q"}));
    assert_eq!(world.refused("RunMicrovm", other).await.0, ErrorCode::Conflict);
    assert_eq!(world.call("RunMicrovm", request).await.unwrap(), first);
}

#[tokio::test]
async fn inactive_and_failed_versions_are_not_run() {
    let world = World::with_image().await;
    let at = json!({"imageIdentifier": ARN, "imageVersion": "1.0"});
    assert_eq!(world.ok("UpdateMicrovmImageVersion", with(at.clone(), json!({"status": "INACTIVE"}))).await["status"], "INACTIVE");
    let pinned = world.refused("RunMicrovm", at.clone()).await;
    assert_eq!(pinned, (ErrorCode::ResourceNotFound, format!("No active version found for MicroVM image {ARN} and version 1.0")));
    let latest = world.refused("RunMicrovm", json!({"imageIdentifier": ARN})).await;
    assert_eq!(latest.1, format!("No active version found for MicroVM image {ARN}"));
    world.ok("UpdateMicrovmImageVersion", with(at, json!({"status": "ACTIVE"}))).await;
    world.running(json!({"imageVersion": "1.0"})).await;
}

#[tokio::test]
async fn an_image_with_live_microvms_stays() {
    let world = World::with_image().await;
    world.ok("UpdateMicrovmImage", with(definition(), json!({"imageIdentifier": ARN}))).await;
    world.image_state("UPDATED").await;
    let id = world.running(json!({"imageVersion": "1.0"})).await;
    let refused = world.refused("DeleteMicrovmImage", json!({"imageIdentifier": ARN})).await;
    assert_eq!(refused, (ErrorCode::Validation, "Cannot delete microvm image with running microvms.".into()));
    let at = json!({"imageIdentifier": ARN, "imageVersion": "1.0"});
    assert_eq!(world.refused("DeleteMicrovmImageVersion", at.clone()).await.0, ErrorCode::Conflict);
    world.change("TerminateMicrovm", id).await;
    world.state(id, "TERMINATED").await;
    world.ok("DeleteMicrovmImageVersion", at).await;
    world.ok("DeleteMicrovmImage", json!({"imageIdentifier": ARN})).await;
    assert_eq!(world.get(id).await["imageArn"], ARN);
}

#[tokio::test]
async fn another_accounts_microvm_looks_absent() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    for operation in ["GetMicrovm", "SuspendMicrovm", "ResumeMicrovm", "TerminateMicrovm"] {
        let answer = world.control.call(&caller("999999999999"), operation, json!({"microvmIdentifier": id})).await;
        assert_eq!(answer.unwrap_err().code, ErrorCode::ResourceNotFound, "{operation}");
    }
}

#[tokio::test]
async fn endpoints_under_a_domain() {
    let world = World::with_endpoint(EndpointSettings::Domain { domain: "vm.example".into(), port: 443 }).await;
    world.ok("CreateMicrovmImage", with(definition(), json!({"name": "web"}))).await;
    world.image_state("CREATED").await;
    let id = world.running(json!({})).await;
    let endpoint = world.get(id).await["endpoint"].as_str().unwrap().to_owned();
    let label = endpoint.strip_suffix(".vm.example").unwrap();
    assert!(uuid::Uuid::parse_str(label).is_ok() && !id.to_string().contains(label));
}

#[tokio::test]
async fn shutdown_waits_for_what_has_begun() {
    let mut world = World::with_image().await;
    let id = world.running(json!({})).await;
    world.parts.host.hold(HostCall::Suspend);
    world.change("SuspendMicrovm", id).await;
    let host = world.parts.host.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        host.release(HostCall::Suspend);
    });
    world.restart().await;
    assert_eq!(world.parts.host.status(World::machine(id)), Some(MachineStatus::Suspended));
    assert_eq!(world.get(id).await["state"], "SUSPENDED");
}
