//! What MicroVMs live through: clocks that jump, hosts that reboot, computation, short memory, orderly stops; what is kept of them and what is told.

use std::time::Duration;

use emberbox_host::MachineStatus;
use emberbox_store::Phase;
use emberbox_wire::ids::MicrovmId;
use serde_json::{Value, json};

use super::{ARN, World, definition, eventually, with};
use crate::config::EndpointSettings;
use crate::events::{Cause, Happening};
use crate::testing::HostCall;
use crate::traffic::Traffic;

const ENDPOINT: EndpointSettings = EndpointSettings::Loopback { port: 8443 };

fn policy(idle: u32, suspended: u32) -> Value {
    json!({"idlePolicy": {"maxIdleDurationSeconds": idle, "suspendedDurationSeconds": suspended, "autoResumeEnabled": true}})
}

async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

impl World {
    fn lives(&self, seconds: u64) {
        self.parts.clock.advance(Duration::from_secs(seconds));
        self.control.poke();
    }

    /// As after `kill -9`: what the daemon had not stored is gone. Its tasks end without the orderly stop's last words.
    async fn crash(&mut self) {
        let anchor = self.parts.store.setting("steady-clock").await.unwrap().unwrap();
        self.control.shutdown().await;
        self.parts.store.set_setting("steady-clock", &anchor).await.unwrap();
        self.control = self.parts.start(ENDPOINT).await.unwrap();
    }

    fn causes(&self, id: MicrovmId) -> Vec<(Phase, Cause)> {
        let of = |happening: Happening| match happening {
            Happening::Microvm { microvm, to, cause, .. } if microvm == id.to_string() => Some((to, cause)),
            _ => None,
        };
        self.parts.events.all().into_iter().filter_map(|event| of(event.what)).collect()
    }
}

#[tokio::test]
async fn a_jump_of_wall_time_ends_and_suspends_nothing() {
    let world = World::with_image().await;
    let id = world.running(with(policy(60, 300), json!({"maximumDurationInSeconds": 1000}))).await;
    for jump in [400_000, -800_000] {
        world.parts.clock.jump_wall(jump);
        world.lives(1);
        settle().await;
        assert_eq!(world.get(id).await["state"], "RUNNING");
    }
    let jumps: Vec<f64> = world.parts.events.all().iter().filter_map(|event| wall_jump(&event.what)).collect();
    assert_eq!(jumps, [400_000.0, -800_000.0]);
    world.lives(58);
    world.state(id, "SUSPENDED").await;
    world.parts.clock.jump_wall(400_000);
    world.lives(299);
    settle().await;
    assert_eq!(world.get(id).await["state"], "SUSPENDED");
    world.lives(1);
    world.state(id, "TERMINATED").await;
}

fn wall_jump(what: &Happening) -> Option<f64> {
    match what {
        Happening::WallClock { jumped_seconds } => Some(*jumped_seconds),
        _ => None,
    }
}

#[tokio::test]
async fn lifetimes_go_on_through_restarts_and_reboots() {
    let mut world = World::with_image().await;
    let id = world.running(json!({"maximumDurationInSeconds": 1000})).await;
    world.change("SuspendMicrovm", id).await;
    world.state(id, "SUSPENDED").await;
    world.lives(200);
    world.parts.clock.jump_wall(50_000);
    world.restart().await;
    world.lives(300);
    settle().await;
    world.control.shutdown().await;
    world.parts.clock.reboot(Duration::from_secs(400));
    world.control = world.parts.start(ENDPOINT).await.unwrap();
    world.lives(99);
    settle().await;
    assert_eq!(world.get(id).await["state"], "SUSPENDED", "999 seconds have passed");
    world.lives(1);
    world.state(id, "TERMINATED").await;
    assert_eq!(world.get(id).await["stateReason"], "Maximum duration of 1000 seconds reached");
}

#[tokio::test]
async fn the_idle_time_goes_on_through_a_restart_and_a_crash_forgives_what_nobody_saw() {
    let mut world = World::with_image().await;
    let id = world.running(policy(60, 300)).await;
    world.lives(50);
    settle().await;
    world.restart().await;
    world.lives(9);
    settle().await;
    assert_eq!(world.get(id).await["state"], "RUNNING");
    world.lives(1);
    world.state(id, "SUSPENDED").await;

    let id = world.running(policy(60, 300)).await;
    world.lives(50);
    settle().await;
    world.crash().await;
    world.lives(39);
    settle().await;
    assert_eq!(world.get(id).await["state"], "RUNNING", "there may have been traffic since the last checkpoint");
    world.lives(1);
    world.state(id, "SUSPENDED").await;
}

#[tokio::test]
async fn a_microvm_that_computes_is_not_idle_where_its_image_says_so() {
    let world = World::with_image().await;
    let refused = world.refused("TagResource", json!({"Resource": ARN, "Tags": {"emberbox:idle": "cpu"}})).await;
    assert!(refused.1.contains("'traffic' or 'traffic+cpu'"), "{}", refused.1);
    let by_traffic = world.running(policy(60, 300)).await;
    world.ok("TagResource", json!({"Resource": ARN, "Tags": {"emberbox:idle": "traffic+cpu"}})).await;
    let by_cpu = world.running(policy(60, 300)).await;
    for _ in 0..12 {
        for id in [by_traffic, by_cpu] {
            world.parts.host.compute(World::machine(id), Duration::from_millis(600));
        }
        world.lives(5);
        settle().await;
    }
    world.state(by_traffic, "SUSPENDED").await;
    assert_eq!(world.get(by_cpu).await["state"], "RUNNING");
    for _ in 0..12 {
        world.parts.host.compute(World::machine(by_cpu), Duration::from_millis(100));
        world.lives(5);
        settle().await;
    }
    world.state(by_cpu, "SUSPENDED").await;
    let reason = "Suspended by the idle policy after 60 seconds without traffic or computation";
    assert_eq!(world.get(by_cpu).await["stateReason"], reason);
}

#[tokio::test]
async fn short_of_memory_the_longest_idle_are_suspended_and_only_those_a_request_wakes() {
    let world = World::with_image().await;
    let sleeper = world.running(json!({})).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(world.running(policy(3600, 3600)).await);
        world.lives(20);
    }
    world.control.touch(idle[0]);
    world.parts.host.memory_available(4);
    world.lives(5);
    for id in [idle[1], idle[2]] {
        world.state(id, "SUSPENDED").await;
        let got = world.get(id).await;
        assert_eq!(got["stateReason"], "Suspended before its time to free memory of the host, of which 4 % was available");
    }
    world.control.touch(idle[0]);
    world.lives(5);
    settle().await;
    assert_eq!(world.get(idle[0]).await["state"], "RUNNING", "it has just answered");
    world.parts.host.memory_available(50);
    world.lives(60);
    settle().await;
    for id in [idle[0], sleeper] {
        assert_eq!(world.get(id).await["state"], "RUNNING");
    }
    assert!(world.causes(idle[1]).contains(&(Phase::Suspending, Cause::MemoryPressure)));
    world.control.connect(idle[1], 80).await.unwrap();
}

#[tokio::test]
async fn an_orderly_stop_suspends_where_that_is_wanted() {
    let mut world = World::with_image().await;
    world.parts.lives.suspend_at_shutdown = Some(Duration::from_secs(20));
    world.restart().await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(world.running(json!({})).await);
    }
    let stubborn = ids[0];
    world.parts.host.hold(HostCall::Launch);
    let launching = world.run(json!({})).await;
    world.parts.host.fail(HostCall::Suspend, || emberbox_host::HostError::DiskFull);
    let stop = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        world.parts.host.release(HostCall::Launch);
    };
    tokio::join!(world.control.shutdown(), stop);
    let states: Vec<_> = ids.iter().chain([&launching]).map(|id| world.parts.host.status(World::machine(*id))).collect();
    let suspended = states.iter().filter(|status| **status == Some(MachineStatus::Suspended)).count();
    assert_eq!(suspended, 6, "all but the one whose suspension failed: {states:?}");
    world.parts.clock.reboot(Duration::from_secs(30));
    // What ran is gone with the host.
    let lost =
        ids.iter().find(|id| world.parts.host.status(World::machine(**id)) == Some(MachineStatus::Running)).copied().unwrap_or(stubborn);
    world.parts.host.put(World::machine(lost), MachineStatus::Lost);
    world.control = world.parts.start(ENDPOINT).await.unwrap();
    world.state(lost, "TERMINATED").await;
    for id in ids.into_iter().filter(|id| *id != lost) {
        let got = world.get(id).await;
        assert_eq!(got["stateReason"], "Suspended because the daemon was stopped (shutdown.suspend)");
        world.change("ResumeMicrovm", id).await;
        world.state(id, "RUNNING").await;
    }
}

#[tokio::test]
async fn a_dead_microvms_disk_is_kept_for_a_while_and_its_record_too() {
    let world = World::with_image().await;
    let (died, ended) = (world.running(json!({})).await, world.running(json!({})).await);
    world.parts.host.exit(World::machine(died), "out of memory");
    world.state(died, "TERMINATED").await;
    assert_eq!(
        world.get(died).await["stateReason"],
        "The MicroVM ended unexpectedly: its virtual machine process ended\nLast output:\nout of memory"
    );
    world.change("TerminateMicrovm", ended).await;
    world.state(ended, "TERMINATED").await;
    let stops = world.parts.host.stops();
    assert_eq!(stops.iter().filter(|stop| stop.keep_disk).map(|stop| stop.machine).collect::<Vec<_>>(), [World::machine(died)]);
    world.lives(86_399);
    settle().await;
    assert_eq!(world.parts.host.kept_disks(), [World::machine(died)]);
    world.get(died).await;
    world.lives(300);
    eventually("reaped", async || world.parts.host.kept_disks().is_empty()).await;
    for id in [died, ended] {
        eventually("forgotten", async || world.call("GetMicrovm", json!({"microvmIdentifier": id})).await.is_err()).await;
    }
    assert_eq!(world.ok("ListMicrovms", json!({})).await, json!({"items": []}));
}

#[tokio::test]
async fn every_change_is_told_with_its_cause_and_what_nobody_asked_for_is_audited() {
    let mut world = World::with_image().await;
    let id = world.running(policy(60, 300)).await;
    world.lives(60);
    world.state(id, "SUSPENDED").await;
    world.control.connect(id, 80).await.unwrap();
    world.change("SuspendMicrovm", id).await;
    world.state(id, "SUSPENDED").await;
    world.lives(300);
    world.state(id, "TERMINATED").await;
    let expected = [
        (Phase::Launching, Cause::Request),
        (Phase::Running, Cause::Request),
        (Phase::Suspending, Cause::IdlePolicy),
        (Phase::Suspended, Cause::IdlePolicy),
        (Phase::Resuming, Cause::Traffic),
        (Phase::Running, Cause::Traffic),
        (Phase::Suspending, Cause::Request),
        (Phase::Suspended, Cause::Request),
        (Phase::Terminating, Cause::IdlePolicy),
        (Phase::Terminated, Cause::IdlePolicy),
    ];
    eventually("told", async || world.causes(id) == expected).await;
    let audited: Vec<_> =
        world.parts.audit.events().into_iter().map(|event| (event.name, event.details.unwrap()["cause"].clone())).collect();
    let names = |name: &str, cause: &str| (name.to_owned(), json!(cause));
    let expected =
        [names("MicrovmSuspended", "idle-policy"), names("MicrovmResumed", "traffic"), names("MicrovmTerminated", "idle-policy")];
    assert_eq!(audited, expected);
    let builds =
        world.parts.events.all().into_iter().filter(|event| matches!(&event.what, Happening::Build { state, .. } if state == "SUCCESSFUL"));
    assert_eq!(builds.count(), 1);

    let id = world.running(json!({})).await;
    world.control.shutdown().await;
    world.parts.host.put(World::machine(id), MachineStatus::Suspended);
    world.control = world.parts.start(ENDPOINT).await.unwrap();
    assert!(world.causes(id).contains(&(Phase::Suspended, Cause::Restart)));
    let started = world.parts.events.all().into_iter().rev().find_map(|event| match event.what {
        Happening::Started { found } => Some(found),
        _ => None,
    });
    let found = started.unwrap();
    assert_eq!((&found["suspended"], &found["phases_corrected"], &found["running"]), (&json!(1), &json!(1), &json!(0)));
}

#[tokio::test]
async fn a_record_that_has_lost_its_task_gets_one_again() {
    let world = World::with_image().await;
    let id = world.running(json!({})).await;
    let core = world.control.core();
    core.microvms.remove(id);
    assert_eq!(world.refused("SuspendMicrovm", json!({"microvmIdentifier": id})).await.0, emberbox_wire::error::ErrorCode::InternalServer);
    core.suspect();
    world.control.poke();
    eventually("a task", async || {
        world.control.poke();
        core.microvms.get(id).is_some()
    })
    .await;
    world.change("SuspendMicrovm", id).await;
    world.state(id, "SUSPENDED").await;
}

#[tokio::test]
async fn a_tag_is_checked_at_creation_too() {
    let world = World::new().await;
    let request = with(definition(), json!({"name": "web", "tags": {"emberbox:idle": "never"}}));
    assert!(world.refused("CreateMicrovmImage", request).await.1.contains("emberbox:idle"));
}
