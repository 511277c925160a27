//! The state machines and reconcilers under events in any order: requests, traffic, outcomes held back and released late, ends of machines told twice,
//! time that passes and wall time that jumps, restarts, crashes and reboots. Whatever happened: calls of the host never overlap, every MicroVM comes to
//! rest where the host has it, a terminated one stays so, and no suspended state is lost.

use std::collections::HashMap;
use std::time::Duration;

use emberbox_host::{HostError, MachineStatus};
use emberbox_wire::ids::MicrovmId;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;

use super::{World, eventually};
use crate::config::EndpointSettings;
use crate::testing::HostCall;
use crate::traffic::Traffic;

const MICROVMS: usize = 2;
const CALLS: [HostCall; 4] = [HostCall::Launch, HostCall::Suspend, HostCall::Resume, HostCall::Stop];

#[derive(Debug, Clone)]
enum Step {
    Ask(usize, &'static str),
    Traffic(usize),
    /// The next call of this kind fails.
    Fail(usize),
    Hold(usize),
    Release(usize),
    /// Its process ends, and that is told twice.
    Exit(usize),
    Pass(u16),
    JumpWall(i32),
    Sweep,
    Restart,
    /// Restart without the orderly end of what is under way.
    Reboot,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let which = || 0..MICROVMS;
    let call = || 0..CALLS.len();
    prop_oneof![
        6 => (which(), prop_oneof![8 => Just("SuspendMicrovm"), 8 => Just("ResumeMicrovm"), 1 => Just("TerminateMicrovm")]).prop_map(|(n, name)| Step::Ask(n, name)),
        3 => which().prop_map(Step::Traffic),
        2 => call().prop_map(Step::Fail),
        1 => call().prop_map(Step::Hold),
        2 => call().prop_map(Step::Release),
        1 => which().prop_map(Step::Exit),
        3 => (1_u16..200).prop_map(Step::Pass),
        1 => (-100_000_i32..100_000).prop_map(Step::JumpWall),
        1 => Just(Step::Sweep),
        1 => Just(Step::Restart),
        1 => Just(Step::Reboot),
        3 => Just(Step::Settle),
    ]
}

/// What must not change back.
#[derive(Default)]
struct Seen {
    terminated: HashMap<MicrovmId, bool>,
    exited: HashMap<MicrovmId, bool>,
}

async fn take(world: &mut World, ids: &[MicrovmId], seen: &mut Seen, step: &Step) {
    match *step {
        Step::Ask(n, operation) => drop(world.call(operation, json!({"microvmIdentifier": ids[n]})).await),
        Step::Traffic(n) => world.control.touch(ids[n]),
        Step::Fail(n) => world.parts.host.fail(CALLS[n], || HostError::DiskFull),
        Step::Hold(n) => world.parts.host.hold(CALLS[n]),
        Step::Release(n) => world.parts.host.release(CALLS[n]),
        Step::Exit(n) => {
            let machine = World::machine(ids[n]);
            if world.parts.host.status(machine) == Some(MachineStatus::Running) && !world.parts.host.is_busy(machine) {
                seen.exited.insert(ids[n], true);
                (0..2).for_each(|_| world.parts.host.exit(machine, "told twice"));
            }
        }
        Step::Pass(seconds) => {
            world.parts.clock.advance(Duration::from_secs(seconds.into()));
            world.control.poke();
        }
        Step::JumpWall(seconds) => world.parts.clock.jump_wall(seconds.into()),
        Step::Sweep => look_for_leftovers(world),
        Step::Restart => {
            release_all(world);
            world.restart().await;
        }
        Step::Reboot => {
            release_all(world);
            world.control.shutdown().await;
            world.parts.clock.reboot(Duration::from_secs(5));
            for id in ids {
                if world.parts.host.status(World::machine(*id)) == Some(MachineStatus::Running) {
                    seen.exited.insert(*id, true);
                    world.parts.host.put(World::machine(*id), MachineStatus::Lost);
                }
            }
            world.control = world.parts.start(EndpointSettings::Loopback { port: 8443 }).await.unwrap();
        }
        Step::Settle => tokio::time::sleep(Duration::from_millis(3)).await,
    }
    for id in ids {
        let terminated = world.get(*id).await["state"] == "TERMINATED";
        let before = seen.terminated.insert(*id, terminated).unwrap_or_default();
        assert!(terminated || !before, "{id} is no longer TERMINATED");
    }
}

fn release_all(world: &World) {
    CALLS.iter().for_each(|call| world.parts.host.release(*call));
}

/// What the daemon does by itself each minute. It finds what is left of a MicroVM whose stop failed at each attempt.
fn look_for_leftovers(world: &World) {
    world.control.core().suspect();
    world.control.poke();
}

async fn story(steps: Vec<Step>) {
    let mut world = World::with_image().await;
    let policy = json!({"idlePolicy": {"maxIdleDurationSeconds": 100, "suspendedDurationSeconds": 100_000, "autoResumeEnabled": true}});
    let mut ids = Vec::new();
    for _ in 0..MICROVMS {
        ids.push(world.run(policy.clone()).await);
    }
    let mut seen = Seen::default();
    for step in &steps {
        take(&mut world, &ids, &mut seen, step).await;
    }
    release_all(&world);
    for id in &ids {
        let (world, machine) = (&world, World::machine(*id));
        eventually(&format!("{id} agrees with its machine"), async || {
            look_for_leftovers(world);
            let state = world.get(*id).await["state"].clone();
            match world.parts.host.status(machine) {
                Some(MachineStatus::Running) => state == "RUNNING",
                Some(MachineStatus::Suspended) => state == "SUSPENDED",
                Some(MachineStatus::Lost) => false,
                None => state == "TERMINATED",
            }
        })
        .await;
        let got = world.get(*id).await;
        let asked = steps.iter().any(|step| matches!(step, Step::Ask(n, "TerminateMicrovm") if ids[*n] == *id));
        let failed_launch = steps.iter().any(|step| matches!(step, Step::Fail(0) | Step::Restart | Step::Reboot));
        let explained = asked || failed_launch || seen.exited.contains_key(id);
        assert!(got["state"] != "TERMINATED" || explained, "lost without a cause: {got}");
    }
    for id in ids {
        world.change("TerminateMicrovm", id).await;
        world.state(id, "TERMINATED").await;
        eventually(&format!("nothing is left of {id}"), async || {
            look_for_leftovers(&world);
            world.parts.host.status(World::machine(id)).is_none()
        })
        .await;
    }
    assert_eq!(world.parts.host.overlaps(), 0);
    assert!(world.control.core().microvms.all().is_empty());
    world.control.shutdown().await;
}

/// Found by the test below: the machine of a MicroVM whose stop has failed for good is ended all the same.
#[tokio::test]
async fn a_stop_that_fails_at_each_attempt_leaves_nothing_for_long() {
    let mut steps = vec![Step::Fail(3); 5];
    steps.push(Step::Ask(0, "TerminateMicrovm"));
    story(steps).await;
}

#[test]
fn events_in_any_order_come_to_rest() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 32, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    let run = |steps| {
        runtime.block_on(story(steps));
        Ok(())
    };
    TestRunner::new(config).run(&prop::collection::vec(step(), 1..30), run).unwrap();
}
